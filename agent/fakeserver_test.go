package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/attestation/jointoken"
	"signet.example/identity"
	"signet.example/policy"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

// fakeServer is a control plane that speaks the real protocols over TLS: AgentAPI,
// and ADS in Relay mode. It signs with a root and nothing between.
type fakeServer struct {
	api.UnimplementedAgentAPIServer

	t       testing.TB
	rootKey *ecdsa.PrivateKey
	root    *x509.Certificate
	signed  []byte // root set
	pin     []byte
	tls     tls.Certificate
	addr    string

	own   *ads.View
	nodes map[string]*ads.View // by node id

	mu       sync.Mutex
	lifetime time.Duration     // of SVIDs
	tokens   map[string]bool   // by secret
	tasks    bool              // what AWS signed for a task is taken, unread
	agentID  string            // of who joins next
	gone     map[string]bool   // agents that were forgotten, by path
	followed map[string]bool   // node ids to which the own view was given
	hosts    map[[32]byte]bool // enrolled host keys
	entries  []*api.Entry
	policies []*api.PolicyRevision
	refuse   error // of Issue
	// spoil, where it is set, makes another answer of a chain that was issued for an entry.
	spoil   func(entry string, chain [][]byte) ([][]byte, error)
	issued  int
	attests int
	reports []*api.Report
	explain chan string
	answers chan *api.ExplainAnswer

	grpc   *grpc.Server
	served chan error
}

func newFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	f := &fakeServer{
		t: t, lifetime: time.Hour, tokens: map[string]bool{}, hosts: map[[32]byte]bool{}, nodes: map[string]*ads.View{},
		agentID: "one", gone: map[string]bool{}, followed: map[string]bool{}, own: ads.NewView("own", ads.Relay), explain: make(chan string), answers: make(chan *api.ExplainAnswer, 16),
	}
	f.rootKey = f.key()
	f.root = f.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: []*url.URL{td.ID().URL()},
	}, &f.rootKey.PublicKey, 24*time.Hour)
	set := identity.RootSet{TrustDomain: td, Number: 1, Roots: []*x509.Certificate{f.root}}
	signed, err := set.Sign(f.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(f.root.RawSubjectPublicKeyInfo)
	f.signed, f.pin = signed, pin[:]
	key := f.key()
	leaf := f.leaf("/signet/server/one", &key.PublicKey, time.Hour)
	f.tls = tls.Certificate{Certificate: [][]byte{leaf.Raw, f.root.Raw}, PrivateKey: key}
	f.addr = ownAddress() + ":0" // where nobody takes the port while it is stopped
	f.publish()
	f.start()
	t.Cleanup(f.stop)
	return f
}

// start serves, at the same address as before.
func (f *fakeServer) start() {
	f.t.Helper()
	l, err := net.Listen("tcp", f.addr)
	// A child that is being started has our old listener until it executes its program.
	for deadline := time.Now().Add(2 * time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		l, err = net.Listen("tcp", f.addr)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = l.Addr().String()
	f.grpc = grpc.NewServer(append(ads.ServerOptions(nil), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{f.tls}, ClientAuth: tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
	})), grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))...) // as the server's
	api.RegisterAgentAPIServer(f.grpc, f)
	(&ads.Server{Views: f}).Register(f.grpc)
	served := make(chan error, 1)
	f.served = served
	g := f.grpc
	go func() { served <- g.Serve(l) }()
}

// stop is the outage of all servers.
func (f *fakeServer) stop() {
	if f.grpc == nil {
		return
	}
	f.grpc.Stop()
	if err := <-f.served; err != nil {
		f.t.Error(err)
	}
	f.grpc = nil
}

func (f *fakeServer) key() *ecdsa.PrivateKey {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	return key
}

func (f *fakeServer) sign(template *x509.Certificate, public *ecdsa.PublicKey, lifetime time.Duration) *x509.Certificate {
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(lifetime)
	parent := f.root
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, f.rootKey)
	if err != nil {
		panic(err) // in a test's goroutines too
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func (f *fakeServer) leaf(path string, public *ecdsa.PublicKey, lifetime time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err)
	}
	return f.sign(&x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{Organization: []string{"test"}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{spiffeid.RequireFromPath(td, path).URL()},
	}, public, lifetime)
}

func (f *fakeServer) token() string {
	f.t.Helper()
	token, err := jointoken.New(f.pin)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[token.SecretText()] = true
	return token.Reveal()
}

// change changes what the server knows and publishes the agent's own view.
func (f *fakeServer) change(change func(*fakeServer)) {
	f.mu.Lock()
	change(f)
	f.mu.Unlock()
	f.publish()
}

func (f *fakeServer) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	rs := []*ads.Resource{f.resource(ads.BundleType, td.IDString(), &api.Bundle{
		TrustDomain: td.Name(), Number: 1, X509Authorities: [][]byte{f.root.Raw}, SignedRootSet: f.signed,
	})}
	for _, e := range f.entries {
		rs = append(rs, f.resource(ads.EntryType, e.GetName(), e))
	}
	for _, p := range f.policies {
		rs = append(rs, f.resource(ads.PolicyType, p.GetId(), p))
	}
	f.own.Publish(f.closed("own", "", rs...))
}

func (f *fakeServer) resource(typeURL, name string, m proto.Message) *ads.Resource {
	r, err := ads.NewResource(typeURL, name, m)
	if err != nil {
		panic(err)
	}
	return r
}

// closed is a set with the resource that closes it.
func (f *fakeServer) closed(name, revision string, rs ...*ads.Resource) *ads.Set {
	set, err := ads.NewSet(rs...)
	if err != nil {
		panic(err)
	}
	view := &api.View{Name: name, SetVersions: map[string]string{}, PolicyRevision: revision}
	for _, t := range set.Types() {
		view.SetVersions[t] = set.TypeVersion(t)
	}
	set, err = ads.NewSet(append(rs, f.resource(ads.ViewType, name, view))...)
	if err != nil {
		panic(err)
	}
	return set
}

// route publishes a virtual node's view.
func (f *fakeServer) route(node, revision string, rs ...*ads.Resource) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.nodes[node]
	if v == nil {
		v = ads.NewView(node, ads.Relay)
		f.nodes[node] = v
	}
	v.Publish(f.closed(node, revision, rs...))
}

// View implements ads.Views.
func (f *fakeServer) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	if err := f.agent(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.nodes[node.GetId()]; v != nil {
		if node.GetMetadata().GetFields()["signet.shape"].GetStructValue() == nil {
			return nil, status.Error(codes.InvalidArgument, "no shape")
		}
		return v, nil
	}
	if node.GetId() == td.IDString()+f.path(ctx) {
		f.followed[node.GetId()] = true
		return f.own, nil
	}
	return nil, status.Error(codes.PermissionDenied, "not bound")
}

func peerCertificates(ctx context.Context) []*x509.Certificate {
	p, _ := peer.FromContext(ctx)
	info, _ := p.AuthInfo.(credentials.TLSInfo)
	return info.State.PeerCertificates
}

// agent verifies the caller's SVID.
func (f *fakeServer) agent(ctx context.Context) error {
	_, err := identity.VerifyChain(peerCertificates(ctx), td, identity.PoolOf(f.root), time.Now(), x509.ExtKeyUsageClientAuth)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone[f.path(ctx)] {
		return status.Error(codes.Unauthenticated, "this agent is not known here")
	}
	return nil
}

// path is the caller's identity.
func (f *fakeServer) path(ctx context.Context) string {
	return peerCertificates(ctx)[0].URIs[0].Path
}

// forget has the server know nobody who joined, and whom the next is that does.
func (f *fakeServer) forget(next string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone["/signet/agent/"+f.agentID] = true
	clear(f.hosts)
	f.agentID = next
}

// follows reports whether an agent was given its own view.
func (f *fakeServer) follows(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.followed[id]
}

// Attest implements api.AgentAPIServer.
func (f *fakeServer) Attest(ctx context.Context, req *api.AttestRequest) (*api.AttestResponse, error) {
	host := sha256.Sum256(peerCertificates(ctx)[0].RawSubjectPublicKeyInfo)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attests++
	switch {
	case req.GetEvidence() == nil && f.hosts[host]:
	case f.tokens[req.GetJoinToken()]:
		delete(f.tokens, req.GetJoinToken())
		f.hosts[host] = true
	case req.GetAwsTask() != nil && f.tasks:
		f.hosts[host] = true
	case req.GetJoinToken() == "":
		return nil, status.Error(codes.Unauthenticated, "this host key is not known here")
	default:
		return nil, status.Error(codes.PermissionDenied, "no such token")
	}
	chain, err := f.answer(req.GetCsr(), "/signet/agent/"+f.agentID)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &api.AttestResponse{AgentId: f.agentID, Chain: chain, SignedRootSet: f.signed}, nil
}

func (f *fakeServer) answer(csr []byte, path string) ([][]byte, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	public, ok := req.PublicKey.(*ecdsa.PublicKey)
	if err := req.CheckSignature(); err != nil || !ok {
		return nil, fmt.Errorf("request: %w", err)
	}
	f.issued++
	return [][]byte{f.leaf(path, public, f.lifetime).Raw}, nil
}

// Issue implements api.AgentAPIServer.
func (f *fakeServer) Issue(ctx context.Context, req *api.IssueRequest) (*api.IssueResponse, error) {
	if err := f.agent(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return nil, f.refuse
	}
	answer := &api.IssueResponse{}
	for _, r := range req.GetRequests() {
		path := f.path(ctx)
		if r.GetEntry() != "" {
			path = ""
			for _, e := range f.entries {
				if e.GetName() == r.GetEntry() {
					path = spiffeid.RequireFromString(e.GetSpiffeId()).Path()
				}
			}
		}
		result := &api.SVIDResult{}
		var err error
		if path == "" {
			err = errors.New("no such entry")
		} else {
			result.Chain, err = f.answer(r.GetCsr(), path)
		}
		if err == nil && f.spoil != nil {
			result.Chain, err = f.spoil(r.GetEntry(), result.Chain)
		}
		if err != nil {
			result.Error = err.Error()
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

// Session implements api.AgentAPIServer.
func (f *fakeServer) Session(stream grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]) error {
	if err := f.agent(stream.Context()); err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			select {
			case id := <-f.explain:
				if stream.Send(&api.SessionDown{Message: &api.SessionDown_Explain{Explain: id}}) != nil {
					return
				}
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil
		}
		if r := m.GetReport(); r != nil {
			f.mu.Lock()
			f.reports = append(f.reports, r)
			f.mu.Unlock()
		}
		if a := m.GetExplain(); a != nil {
			f.answers <- a
		}
	}
}

func (f *fakeServer) lastReport() *api.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return &api.Report{}
	}
	return f.reports[len(f.reports)-1]
}

// entry is an identity for processes with these selectors.
func entry(name, path string, selectors ...string) *api.Entry {
	return &api.Entry{Name: "entry/" + name, SpiffeId: td.IDString() + path, Selectors: selectors}
}

// binding lets processes with these selectors be the proxy of a virtual node.
func binding(name, node string, selectors ...string) *api.Entry {
	return &api.Entry{
		Name: "binding/" + name, SpiffeId: td.IDString() + "/shop/" + node, Selectors: selectors,
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: node},
	}
}

func revision(t testing.TB, rego string) *api.PolicyRevision {
	t.Helper()
	r := policy.NewRevision("https://git.example/policies", "c0ffee", []policy.Module{{Path: "mesh.rego", Rego: rego}}, policy.Generated{})
	return &api.PolicyRevision{
		Id: r.ID, Source: r.Source, Commit: r.Commit,
		Modules: []*api.PolicyModule{{Path: "mesh.rego", Rego: rego}},
	}
}
