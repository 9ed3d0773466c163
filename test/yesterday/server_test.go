package yesterday

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.step.sm/crypto/pemutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"signet.example/test/meshtest"
)

// oldServer answers as the server of the release before did: what an agent says is
// read as that release reads it, subscriptions get what was sent then, byte for byte,
// and certificates are signed by that root for the keys of now.
type oldServer struct {
	t     *testing.T
	files *protoregistry.Files
	root  *x509.Certificate
	key   crypto.Signer
	set   []byte
	agent string // SPIFFE ID
	ids   map[string]string
	calls []*call

	mu      sync.Mutex
	proxies map[string]string // state by name, of the newest report
	issued  int
	unknown []string // what was asked that the release does not know
}

func (s *oldServer) sign(csr []byte, id string) ([][]byte, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, err
	}
	return s.certificate(request.PublicKey, id)
}

func (s *oldServer) certificate(key any, id string) ([][]byte, error) {
	uri, err := url.Parse(id)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, s.root, key, s.key)
	return [][]byte{der, s.root.Raw}, err
}

// answer is a message of that release with some fields set.
func (s *oldServer) answer(name protoreflect.FullName, set func(*dynamicpb.Message)) []byte {
	m := read(s.t, s.files, name, nil)
	set(m)
	content, err := proto.Marshal(m)
	if err != nil {
		s.t.Error(err)
	}
	return content
}

func fill(m protoreflect.Message, name protoreflect.Name, v protoreflect.Value) {
	m.Set(m.Descriptor().Fields().ByName(name), v)
}

func chainInto(m protoreflect.Message, chain [][]byte) {
	list := m.Mutable(m.Descriptor().Fields().ByName("chain")).List()
	for _, der := range chain {
		list.Append(protoreflect.ValueOfBytes(der))
	}
}

func (s *oldServer) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var first []byte
	if err := stream.RecvMsg(&first); err != nil {
		return err
	}
	switch method {
	case attestMethod:
		return s.attest(first, stream)
	case issueMethod:
		return s.issue(first, stream)
	case sessionMethod:
		return s.session(first, stream)
	case adsMethod:
		return s.subscribed(first, stream)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown = append(s.unknown, method)
	return status.Error(codes.Unimplemented, method)
}

func (s *oldServer) attest(first []byte, stream grpc.ServerStream) error {
	request := read(s.t, s.files, "signet.v1alpha1.AttestRequest", first)
	chain, err := s.sign(field(request, "csr").Bytes(), s.agent)
	if err != nil {
		return err
	}
	answer := s.answer("signet.v1alpha1.AttestResponse", func(m *dynamicpb.Message) {
		fill(m, "agent_id", protoreflect.ValueOfString(filepath.Base(s.agent)))
		fill(m, "signed_root_set", protoreflect.ValueOfBytes(s.set))
		chainInto(m, chain)
	})
	return stream.SendMsg(&answer)
}

func (s *oldServer) issue(first []byte, stream grpc.ServerStream) error {
	requests := field(read(s.t, s.files, "signet.v1alpha1.IssueRequest", first), "requests").List()
	answer := s.answer("signet.v1alpha1.IssueResponse", func(m *dynamicpb.Message) {
		results := m.Mutable(m.Descriptor().Fields().ByName("results")).List()
		for i := range requests.Len() {
			r, id := requests.Get(i).Message(), s.agent
			if entry := field(r, "entry").String(); entry != "" {
				id = s.ids[entry]
			}
			chain, err := s.sign(field(r, "csr").Bytes(), id)
			if err != nil {
				s.t.Errorf("Issue of %s: %v", id, err)
			}
			chainInto(results.AppendMutable().Message(), chain)
		}
	})
	s.mu.Lock()
	s.issued += requests.Len()
	s.mu.Unlock()
	return stream.SendMsg(&answer)
}

func (s *oldServer) session(first []byte, stream grpc.ServerStream) error {
	for m := first; ; {
		report := field(read(s.t, s.files, "signet.v1alpha1.SessionUp", m), "report").Message()
		if report.IsValid() {
			states, proxies := map[string]string{}, field(report, "proxies").List()
			for i := range proxies.Len() {
				p := proxies.Get(i).Message()
				if n := field(p, "virtual_node").Message(); field(n, "mesh").String() != "test" || field(n, "name").String() != field(p, "name").String() {
					s.t.Errorf("a proxy of %v", n)
				}
				states[field(p, "name").String()] = fmt.Sprintf("%s, healthy %t, %d ports at %s", field(p, "state"), field(p, "healthy").Bool(), field(p, "ports").List().Len(), field(p, "address"))
			}
			s.mu.Lock()
			s.proxies = states
			s.mu.Unlock()
		}
		m = nil
		if err := stream.RecvMsg(&m); err != nil {
			return nil // the agent ends it
		}
	}
}

func (s *oldServer) subscribed(first []byte, stream grpc.ServerStream) error {
	var request discoveryv3.DeltaDiscoveryRequest
	if err := proto.Unmarshal(first, &request); err != nil {
		return err
	}
	for _, c := range s.calls {
		var then discoveryv3.DeltaDiscoveryRequest
		if err := proto.Unmarshal(c.sent[0].bytes, &then); err != nil {
			return err
		}
		if then.GetNode().GetId() != request.GetNode().GetId() {
			continue
		}
		for _, m := range c.received {
			if err := stream.SendMsg(&m.bytes); err != nil {
				return err
			}
		}
		for {
			var ack []byte
			if err := stream.RecvMsg(&ack); err != nil {
				return nil // the agent ends it
			}
			var answer discoveryv3.DeltaDiscoveryRequest
			if err := proto.Unmarshal(ack, &answer); err != nil {
				return err
			}
			if e := answer.GetErrorDetail(); e != nil {
				s.t.Errorf("the agent refuses %s: %s", answer.GetTypeUrl(), e.GetMessage())
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown = append(s.unknown, "the view of "+request.GetNode().GetId())
	return status.Error(codes.NotFound, "no such view")
}

// start serves until the test ends, and returns the address.
func (s *oldServer) start(own tls.Certificate) string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	g := grpc.NewServer(grpc.ForceServerCodec(bytesOnly{}), grpc.UnknownServiceHandler(s.serve),
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert})))
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }() // ends by Stop
	s.t.Cleanup(func() { g.Stop(); <-done })
	return l.Addr().String()
}

// oldServerOf has the root of the release before, whose files are in dir.
func oldServerOf(t *testing.T, w *meshtest.World) *oldServer {
	t.Helper()
	_, back := calls(t)
	kept, _ := standingOf(t, w)
	s := &oldServer{t: t, files: messages(t), agent: "spiffe://" + trustDomain + "/signet/agent/" + kept.AgentID, set: []byte(kept.RootSet), calls: only(t, back, adsMethod), ids: map[string]string{}}
	password, err := os.ReadFile(filepath.Join(w.Dir, "password"))
	certPEM, err2 := os.ReadFile(filepath.Join(w.ServerDir(), "ca", "root.crt"))
	keyPEM, err3 := os.ReadFile(filepath.Join(w.ServerDir(), "ca", "root.key"))
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	if s.root, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	key, err := pemutil.ParseKey(keyPEM, pemutil.WithPassword(bytes.TrimSpace(password)))
	if err != nil {
		t.Fatal(err)
	}
	s.key = key.(crypto.Signer)
	for _, c := range s.calls {
		for k, content := range resourcesOf(t, c.received) {
			if k.kind == typePrefix+"Entry" {
				s.ids[k.name] = field(read(t, s.files, "signet.v1alpha1.Entry", content), "spiffe_id").String()
			}
		}
	}
	return s
}

func TestTodaysAgentIsServedByAServerOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	w := meshtest.Prepare(t, meshtest.Options{TrustDomain: trustDomain, Nodes: []string{"front", "orders"}})
	unpack(t, "whole.tar.gz", w.Dir)
	s := oldServerOf(t, w)
	key := meshtest.Key(t)
	chain, err := s.certificate(key.Public(), "spiffe://"+trustDomain+"/signet/server/control-1")
	if err != nil {
		t.Fatal(err)
	}
	address := s.start(tls.Certificate{Certificate: chain, PrivateKey: key})
	if err := os.Mkdir(filepath.Join(w.Dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.Agent = w.Run("agent", w.Program(), "agent", "--config", configWith(t, w, "agent.yaml", address))
	w.Await("both proxies are reported as served", 40*time.Second, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range []string{"front", "orders"} {
			if want := "ready, healthy true, 1 ports at " + w.Nodes[name].Bind; s.proxies[name] != want {
				return fmt.Errorf("%v", s.proxies)
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Sort(s.unknown); len(s.unknown) > 0 {
		t.Errorf("the agent asks for %v", slices.Compact(s.unknown))
	}
	if s.issued < 2 {
		t.Errorf("%d certificates were asked for", s.issued)
	}
}
