package yesterday

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/attestation/jointoken"
	"signet.example/identity"
	"signet.example/test/meshtest"
)

// replay is an agent of the release before at today's server: what it sent then is
// sent again, byte for byte, and what today's server answers is read as that release
// reads it. Only what proves something is made anew: tokens, keys and the CSRs of those.
type replay struct {
	t        *testing.T
	w        *meshtest.World
	files    *protoregistry.Files
	pin      []byte
	host     tls.Certificate
	instance string
	conn     *grpc.ClientConn
}

const (
	attestMethod  = "/signet.v1alpha1.AgentAPI/Attest"
	issueMethod   = "/signet.v1alpha1.AgentAPI/Issue"
	sessionMethod = "/signet.v1alpha1.AgentAPI/Session"
	typePrefix    = "type.googleapis.com/signet.v1alpha1."
	policyType    = typePrefix + "PolicyRevision"
	endpointType  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	adsMethod     = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
)

// bytesOnly is a codec that reads and writes nothing itself.
type bytesOnly struct{}

func (bytesOnly) Name() string                    { return "proto" }
func (bytesOnly) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (bytesOnly) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }

// edited is a message with other content in a field of bytes, at a path of numbers.
// content is called for each place.
func edited(t *testing.T, message []byte, content func() []byte, first protowire.Number, rest ...protowire.Number) []byte {
	t.Helper()
	var out []byte
	for len(message) > 0 {
		n, kind, head := protowire.ConsumeTag(message)
		if head < 0 {
			t.Fatal(protowire.ParseError(head))
		}
		body := protowire.ConsumeFieldValue(n, kind, message[head:])
		if body < 0 {
			t.Fatal(protowire.ParseError(body))
		}
		field := message[:head+body]
		message = message[head+body:]
		if n == first && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(field[head:])
			if len(rest) > 0 {
				value = edited(t, value, content, rest[0], rest[1:]...)
			} else {
				value = content()
			}
			field = protowire.AppendBytes(protowire.AppendTag(nil, n, kind), value)
		}
		out = append(out, field...)
	}
	return out
}

// standing is what the agent kept of itself.
type standing struct {
	AgentID string `json:"agent_id"`
	Pin     []byte `json:"pin"`
	RootSet string `json:"root_set"`
}

func standingOf(t *testing.T, w *meshtest.World) (standing, *ecdsa.PrivateKey) {
	t.Helper()
	var s standing
	content, err := os.ReadFile(filepath.Join(w.Dir, "agent-data", "agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(w.Dir, "agent-data", "host.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM in host.key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return s, key.(*ecdsa.PrivateKey)
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dial connects as that release does: the server's chain leads to the key that it pinned.
func (r *replay) dial(own tls.Certificate) *grpc.ClientConn {
	r.t.Helper()
	addresses, err := r.w.Addresses(r.w.ServerDir())
	if err != nil {
		r.t.Fatal(err)
	}
	verify := func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates {
			if sum := sha256.Sum256(c.RawSubjectPublicKeyInfo); bytes.Equal(sum[:], r.pin) {
				_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
					Roots: identity.PoolOf(c), Intermediates: identity.PoolOf(cs.PeerCertificates[1:]...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				return err
			}
		}
		r.t.Error("the server's chain has no root with the pin")
		return x509.UnknownAuthorityError{}
	}
	conn, err := grpc.NewClient("passthrough:///"+addresses.Agents,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
			InsecureSkipVerify: true, VerifyConnection: verify, //nolint:gosec // verified there
		})), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesOnly{})))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() }) // its calls are over
	return conn
}

func (r *replay) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	return metadata.AppendToOutgoingContext(ctx, api.InstanceHeader, r.instance), cancel
}

// call makes one call and gives the answer as that release reads it.
func (r *replay) call(conn *grpc.ClientConn, c *call, request []byte) protoreflect.Message {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	var answer []byte
	if err := conn.Invoke(ctx, c.method, &request, &answer); err != nil {
		r.t.Fatalf("%s: %v", c.method, err)
	}
	return read(r.t, r.files, c.received[0].kind, answer)
}

// attest sends the Attest of c, and gives the id and the SVID of the answer.
func (r *replay) attest(c *call, request []byte) (id string, svid tls.Certificate) {
	r.t.Helper()
	key := meshtest.Key(r.t)
	answer := r.call(r.dial(r.host), c, edited(r.t, request, func() []byte { return meshtest.CSR(r.t, key) }, 2))
	chain := field(answer, "chain").List()
	for i := range chain.Len() {
		svid.Certificate = append(svid.Certificate, chain.Get(i).Bytes())
	}
	svid.PrivateKey = key
	if len(svid.Certificate) == 0 {
		r.t.Fatal("Attest: no chain")
	}
	if _, err := identity.ParseRootSet(field(answer, "signed_root_set").Bytes(), r.pin); err != nil {
		r.t.Errorf("Attest: root set: %v", err)
	}
	return field(answer, "agent_id").String(), svid
}

func TestAnAgentOfTheReleaseBeforeIsServed(t *testing.T) {
	t.Parallel()
	w := resume(t)
	joined, back := calls(t)
	kept, hostKey := standingOf(t, w)
	r := &replay{t: t, w: w, files: messages(t), pin: kept.Pin}

	// A new host joins with a token.
	first := only(t, joined, attestMethod)[0]
	text := created(t, w)
	token, err := jointoken.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(token.Pin[:], kept.Pin) {
		t.Error("a token pins another root than before")
	}
	r.host, r.instance = selfSigned(t, meshtest.Key(t)), rand.Text()
	if id, _ := r.attest(first, edited(t, first.sent[0].bytes, func() []byte { return []byte(token.SecretText()) }, 1)); id == "" || id == kept.AgentID {
		t.Errorf("a new host is agent %q", id)
	}

	// The host that joined the release before comes back by its key, and is who it was.
	again := only(t, back, attestMethod)[0]
	r.host, r.instance = selfSigned(t, hostKey), rand.Text()
	id, svid := r.attest(again, again.sent[0].bytes)
	if id != kept.AgentID {
		t.Errorf("it comes back as %s, and was %s", id, kept.AgentID)
	}
	r.conn = r.dial(svid)

	issued := 0
	for _, c := range only(t, back, issueMethod) {
		answer := field(r.call(r.conn, c, edited(t, c.sent[0].bytes, func() []byte { return meshtest.CSR(t, meshtest.Key(t)) }, 1, 2)), "results").List()
		for i := range answer.Len() {
			result := answer.Get(i).Message()
			if msg := field(result, "error").String(); msg != "" || field(result, "chain").List().Len() == 0 {
				t.Errorf("Issue: %q", msg)
			}
			issued++
		}
	}
	if issued < 2 {
		t.Errorf("%d certificates", issued)
	}
	r.session(joined, back)
	r.resources(back)
}

// session reports as the agent did, and answers when it is asked for a decision.
func (r *replay) session(joined, back []*call) {
	t := r.t
	ctx, cancel := r.context()
	defer cancel()
	stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, sessionMethod)
	if err != nil {
		t.Fatal(err)
	}
	send := func(m message) {
		if err := stream.SendMsg(&m.bytes); err != nil {
			t.Fatalf("Session: %v", err)
		}
	}
	var said protoreflect.List // the proxies, once all are ready; later the agent drained them
	for _, m := range only(t, back, sessionMethod)[0].sent {
		report := field(read(t, r.files, m.kind, m.bytes), "report").Message()
		if !report.IsValid() {
			continue
		}
		send(m)
		said = field(report, "proxies").List()
		if ready := 0; said.Len() == 2 {
			for i := range said.Len() {
				if p := said.Get(i).Message(); field(p, "state").String() == "ready" && field(p, "healthy").Bool() {
					ready++
				}
			}
			if ready == 2 {
				break
			}
		}
	}
	r.w.Await("the report is shown", 10*time.Second, func() error {
		for _, p := range r.w.Proxies() {
			for i := range said.Len() {
				s := said.Get(i).Message()
				if field(s, "name").String() == p.GetName() && field(s, "pid").Int() == p.GetPid() && field(s, "address").String() == p.GetAddress() && p.GetState() == api.ProxyStatus_READY {
					said.Set(i, said.Get(said.Len()-1))
					said.Truncate(said.Len() - 1)
					break
				}
			}
		}
		if said.Len() > 0 {
			return errMissing
		}
		return nil
	})
	id := strings.TrimSpace(string(kept(t, "decision.txt")))
	explained := make(chan *api.ExplainResponse, 1)
	go func() {
		answer, _ := r.w.Admin.Explain(ctx, &api.ExplainRequest{Id: id})
		explained <- answer
	}()
	for asked := false; !asked; {
		var down []byte
		if err := stream.RecvMsg(&down); err != nil {
			t.Fatalf("Session: %v", err)
		}
		asked = field(read(t, r.files, "signet.v1alpha1.SessionDown", down), "explain").String() == id
	}
	for _, m := range only(t, joined, sessionMethod)[0].sent {
		if e := field(read(t, r.files, m.kind, m.bytes), "explain").Message(); e.IsValid() && field(e, "id").String() == id {
			send(m)
		}
	}
	if d := (<-explained).GetDecision(); d.GetId() != id || d.GetAllowed() || len(d.GetRules()) == 0 || d.GetCause() != api.Cause_CAUSE_POLICY {
		t.Errorf("explain: %v", d)
	}
}

// resources subscribes as the agent did, and compares what comes with what came.
func (r *replay) resources(back []*call) {
	nodes := map[string]bool{}
	for _, c := range only(r.t, back, adsMethod) {
		var first discoveryv3.DeltaDiscoveryRequest
		if err := proto.Unmarshal(c.sent[0].bytes, &first); err != nil {
			r.t.Fatal(err)
		}
		if id := first.GetNode().GetId(); !nodes[id] {
			nodes[id] = true
			then := resourcesOf(r.t, c.received)
			r.compare(id, then, r.subscribe(c, then))
		}
	}
	if len(nodes) != 3 {
		r.t.Errorf("the agent had streams for %v", nodes)
	}
}

// resourceKey is a type and a name.
type resourceKey struct{ kind, name string }

// resourcesOf is what came. Endpoints stay that went when the agent stopped.
func resourcesOf(t *testing.T, received []message) map[resourceKey][]byte {
	t.Helper()
	out := map[resourceKey][]byte{}
	for _, m := range received {
		var answer discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(m.bytes, &answer); err != nil {
			t.Fatal(err)
		}
		for _, res := range answer.GetResources() {
			out[resourceKey{answer.GetTypeUrl(), res.GetName()}] = res.GetResource().GetValue()
		}
		for _, name := range answer.GetRemovedResources() {
			if answer.GetTypeUrl() == endpointType {
				continue
			}
			delete(out, resourceKey{answer.GetTypeUrl(), name})
		}
	}
	return out
}

// subscribe sends the subscriptions of c, and acknowledges until the view is whole and
// has the endpoints of then: they come when the report is understood.
func (r *replay) subscribe(c *call, then map[resourceKey][]byte) map[resourceKey][]byte {
	r.t.Helper()
	ctx, cancel := r.context()
	defer cancel()
	stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, adsMethod)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range c.sent {
		var req discoveryv3.DeltaDiscoveryRequest
		if err := proto.Unmarshal(m.bytes, &req); err != nil {
			r.t.Fatal(err)
		}
		if req.GetResponseNonce() != "" { // an answer to an answer
			continue
		}
		if err := stream.SendMsg(&m.bytes); err != nil {
			r.t.Fatalf("subscribe: %v", err)
		}
	}
	var received []message
	for {
		var content []byte
		if err := stream.RecvMsg(&content); err != nil {
			r.t.Fatalf("subscribe: %v", err)
		}
		received = append(received, message{bytes: content})
		var answer discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(content, &answer); err != nil {
			r.t.Fatal(err)
		}
		if answer.GetTypeUrl() == ads.ViewType && len(answer.GetResources()) > 0 {
			got, whole := resourcesOf(r.t, received), true
			for k := range then {
				whole = whole && (k.kind != endpointType || got[k] != nil)
			}
			if whole {
				return got
			}
		}
		ack, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: answer.GetTypeUrl(), ResponseNonce: answer.GetNonce()})
		if err != nil {
			r.t.Fatal(err)
		}
		if err := stream.SendMsg(&ack); err != nil {
			r.t.Fatalf("acknowledge: %v", err)
		}
	}
}

// compare holds Signet's own resources to what they were, as that release reads both,
// endpoints by their bytes and the rest of Envoy's by name. The view names versions, which are of today's content. Of the
// policies that one counts which is in force: the one before it is kept for proxies that
// are stamped with it, until a server starts anew.
func (r *replay) compare(node string, then, today map[resourceKey][]byte) {
	r.t.Helper()
	own, endpoints, inForce := 0, 0, field(read(r.t, r.files, "signet.v1alpha1.View", then[resourceKey{ads.ViewType, node}]), "policy_revision").String()
	for k, was := range then {
		is, there := today[k]
		if !there {
			if k.kind == policyType && k.name != inForce {
				continue
			}
			r.t.Errorf("%s: %s %s is gone", node, k.kind, k.name)
			continue
		}
		if k.kind == endpointType { // where callers are sent, by what the agent has just reported
			endpoints++
			if !bytes.Equal(was, is) {
				r.t.Errorf("%s: the endpoints of %s were\n%q\nand are\n%q", node, k.name, was, is)
			}
		}
		kind, ours := strings.CutPrefix(k.kind, typePrefix)
		if !ours || k.kind == ads.ViewType {
			continue
		}
		own++
		name := protoreflect.FullName("signet.v1alpha1." + kind)
		if a, b := read(r.t, r.files, name, was), read(r.t, r.files, name, is); !proto.Equal(a, b) {
			r.t.Errorf("%s: %s %s was\n%v\nand is\n%v", node, k.kind, k.name, a, b)
		}
	}
	if strings.HasPrefix(node, "spiffe://") && own < 5 {
		r.t.Errorf("%s: %d of Signet's resources were compared", node, own)
	}
	if strings.Contains(node, "front") && endpoints == 0 {
		r.t.Errorf("%s: no endpoints were compared", node)
	}
}

// only are the calls of a method, in order.
func only(t *testing.T, all []*call, method string) []*call {
	t.Helper()
	out := slices.DeleteFunc(slices.Clone(all), func(c *call) bool {
		return c.method != method || len(c.sent) == 0 || len(c.received) == 0 && method != sessionMethod
	})
	if len(out) == 0 {
		t.Fatalf("no call of %s was recorded", method)
	}
	return out
}
