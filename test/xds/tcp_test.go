package xdstest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	own "signet.example/proxy/answers"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// greeter is an application whose server speaks first and then answers what it is told,
// and counts who connected.
type greeter struct {
	net.Listener
	connected atomic.Int64
	wg        sync.WaitGroup
}

const banner = "220 store\r\n"

func startGreeter(t *testing.T, at string) *greeter {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	g := &greeter{Listener: l}
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.connected.Add(1)
			g.wg.Go(func() {
				defer func() { _ = c.Close() }() // it is the client's to end
				if _, err := io.WriteString(c, banner); err == nil {
					_, _ = io.Copy(c, c)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); g.wg.Wait() })
	return g
}

func (g *greeter) port() uint32 { return uint32(g.Addr().(*net.TCPAddr).Port) } //nolint:gosec // a port

// decider answers questions about connections by what the test says.
type decider struct {
	authv3.UnimplementedAuthorizationServer
	socket string
	stop   func()
	allow  func(*authv3.AttributeContext) bool
	asked  atomic.Int64
	port   atomic.Value // the last that it was told
}

func startDecider(t *testing.T, allow func(*authv3.AttributeContext) bool) *decider {
	t.Helper()
	d := &decider{socket: filepath.Join(socketDir(t), "ask.sock"), allow: allow}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, d)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	d.stop = func() { s.Stop(); wg.Wait() }
	t.Cleanup(d.stop)
	return d
}

func (d *decider) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	d.asked.Add(1)
	d.port.Store(strings.Join(metadata.ValueFromIncomingContext(ctx, proxy.PortKey), " "))
	code := codes.PermissionDenied
	if d.allow(q.GetAttributes()) {
		code = codes.OK
	}
	told, err := structpb.NewStruct(map[string]any{proxy.DecisionIDField: "0123456789abcdef0123456789abcdef"})
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(code)}, DynamicMetadata: told}, err
}

const stores = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: store}
spec:
  listeners: [{portMapping: {port: PORT, protocol: tcp}, connectionPool: {tcp: {maxConnections: 2}}}]
  logging: {accessLog: {file: {path: /dev/stdout, format: {text: "tcp %DOWNSTREAM_PEER_URI_SAN% %DYNAMIC_METADATA(envoy.filters.network.ext_authz:decision_id)% %RESPONSE_CODE_DETAILS%\n"}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec: {backends: [{virtualService: {virtualServiceRef: {name: store}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: store}
spec: {awsName: store.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: store}}}}
`

// say writes, and returns all that comes back within a time, and whether the other end
// closed by then.
func say(t *testing.T, c net.Conn, text string, within time.Duration) (string, bool) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		if _, err := io.WriteString(c, text); err != nil {
			return "", true
		}
	}
	var got strings.Builder
	_, err := io.Copy(&got, c)
	ne, ok := err.(net.Error) //nolint:errorlint // as it comes
	return got.String(), !ok || !ne.Timeout()
}

// Left to itself Envoy connects as soon as it accepts: whoever is denied reads what the
// server says first (docs/decisions/057).
func TestNothingIsOpenedForAConnectionBeforeItIsLet(t *testing.T) {
	app, pki := startGreeter(t, loopback()+":0"), newPKI(t)
	var allowed, anybody atomic.Bool
	authz := startDecider(t, func(a *authv3.AttributeContext) bool {
		return anybody.Load() || allowed.Load() && a.GetSource().GetPrincipal() == "spiffe://test.example/shop/web" && a.GetSource().GetCertificate() != "" &&
			a.GetDestination().GetAddress().GetSocketAddress().GetPortValue() == app.port()
	})
	var letOut atomic.Bool
	wayout := startDecider(t, func(*authv3.AttributeContext) bool { return letOut.Load() })
	text := strings.ReplaceAll(stores, "PORT", fmt.Sprint(app.port()))
	strict := false
	node := func(name string, endpoints ...xds.Endpoint) xdstest.Case {
		bind := loopback()
		return xdstest.Case{
			Name: name, Mesh: "shop", Node: name,
			Input: xds.Input{
				Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain,
				Endpoints: func(proxy.Ref, uint32) []xds.Endpoint { return endpoints },
				Strict:    func(proxy.Ref) bool { return strict },
			},
			Shape: proxy.Shape{Bind: bind, App: app.Addr().(*net.TCPAddr).IP.String(), Egress: xdstest.EgressOn(bind), AuthzSocket: authz.socket, WayoutSocket: wayout.socket, Answers: true},
		}
	}
	store := node("store")
	callee := startProxy(t, store, pki)
	inbound := net.JoinHostPort(store.Shape.Bind, fmt.Sprint(app.port()))
	byTLS := func(id string) (net.Conn, error) {
		svid := pki.svid(t, id)
		return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", inbound, &tls.Config{
			Certificates: []tls.Certificate{*svid}, InsecureSkipVerify: true, //nolint:gosec // the server is not what is tried
			MinVersion: tls.VersionTLS13,
		})
	}
	open := func(how string) net.Conn {
		t.Helper()
		if how == "plaintext" {
			return connect(t, inbound)
		}
		c, err := byTLS("spiffe://test.example/shop/" + how)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	nothing := func(what string, got string) {
		t.Helper()
		if n := app.connected.Load(); n != 0 || got != "" {
			t.Fatalf("%s: the application was connected to %d times, the client read %q", what, n, got)
		}
	}

	// Deny all, at the callee's own proxy.
	for _, how := range []string{"web", "plaintext"} {
		c := open(how)
		asked := authz.asked.Load()
		got, _ := say(t, c, "", 700*time.Millisecond)
		nothing(how+", silent", got)
		if authz.asked.Load() != asked {
			t.Errorf("%s: asked about before it said anything", how)
		}
		_ = c.Close()
		c = open(how)
		got, closed := say(t, c, "hello", 5*time.Second)
		nothing(how+", denied", got)
		if !closed {
			t.Errorf("%s: a denied connection stays open", how)
		}
		_ = c.Close()
	}
	// In TLS 1.3 a client's handshake is over before the server has seen its certificate.
	if c, err := byTLS("spiffe://test.example/shop/stranger"); err == nil {
		asked := authz.asked.Load()
		if got, closed := say(t, c, "hello", 5*time.Second); !closed || got != "" || authz.asked.Load() != asked {
			t.Errorf("who has no such backend: %q, closed %v, asked about %d times", got, closed, authz.asked.Load()-asked)
		}
		_ = c.Close()
	}
	nothing("an undeclared caller", "")

	// The other direction: what is not let out reaches nobody, and what says nothing neither.
	front := node("web", xds.Endpoint{Address: store.Shape.Bind, Port: app.port(), Healthy: true})
	caller := startProxy(t, front, pki)
	out := front.Shape.Egress.TCP("store.shop.internal", app.port(), 0).String()
	came := func() int64 {
		var n int64
		for name, v := range callee.envoy.Stats(t, `^listener\..*downstream_cx_total$`) {
			if strings.Contains(name, fmt.Sprint(app.port())) && !strings.Contains(name, "worker") {
				n += v
			}
		}
		return n
	}
	before := came()
	if before == 0 {
		t.Fatal("the test does not see who comes")
	}
	var calls int64 // by the name that a stopping proxy is asked for them by (agent/envoy)
	for _, n := range callee.envoy.Stats(t, `^tcp\.ingress.*\.downstream_cx_total$`) {
		calls += n
	}
	if calls == 0 {
		t.Error("connections of tcp are not counted as calls")
	}
	c := connect(t, out)
	got, closed := say(t, c, "hello", 5*time.Second)
	if !closed || got != "" || wayout.asked.Load() != 1 {
		t.Errorf("a stranger at the way out: %q, closed %v, asked %d times", got, closed, wayout.asked.Load())
	}
	_ = c.Close()
	letOut.Store(true)
	c = connect(t, out)
	if got, closed = say(t, c, "", 5*time.Second); got != "" || !closed {
		t.Errorf("who says nothing: %q, closed %v", got, closed)
	}
	_ = c.Close()
	if n := came(); n != before {
		t.Errorf("%d connections came out before they were let", n-before)
	}
	c = connect(t, out)
	got, closed = say(t, c, "hello", 5*time.Second) // let out, and denied by the callee
	nothing("denied by the callee", got)
	if !closed {
		t.Error("a connection that the callee denied stays open")
	}
	_ = c.Close()

	allowed.Store(true)
	served := func(c net.Conn) {
		t.Helper()
		if got, _ := say(t, c, "hello", 700*time.Millisecond); got != banner+"hello" {
			t.Errorf("a connection that is let: %q", got)
		}
	}
	first, second := connect(t, out), connect(t, out)
	served(first)
	served(second)
	if got := authz.port.Load(); got != fmt.Sprint(app.port()) {
		t.Errorf("the agent is told that the listener's port is %q", got)
	}
	third := connect(t, out)
	if got, closed := say(t, third, "hello", 5*time.Second); got != "" || !closed {
		t.Errorf("more than the pool has: %q, closed %v", got, closed)
	}
	for _, c := range []net.Conn{first, second, third} {
		_ = c.Close()
	}
	if c := open("plaintext"); true {
		if got, closed := say(t, c, "hello", 5*time.Second); got != "" || !closed {
			t.Errorf("without an identity: %q, closed %v", got, closed)
		}
		_ = c.Close()
	}
	callee.envoy.Wait(t, "the id of a decision is in the access log", func() bool {
		return strings.Contains(callee.envoy.Log(), "tcp spiffe://test.example/shop/web 0123456789abcdef0123456789abcdef") &&
			strings.Contains(callee.envoy.Log(), "tcp - 0123456789abcdef0123456789abcdef ext_authz_denied")
	})

	// In plaintext, what looks like TLS is the application's own.
	anybody.Store(true)
	plain := store
	plain.Input.Graph = graphtest.Graph(t, "mesh.yaml", []byte(strings.Replace(text, "protocol: tcp}", `protocol: tcp}, tls: {mode: DISABLED, certificate: {acm: {certificateARN: "arn:x"}}}`, 1)))
	callee.publish(plain, pki)
	callee.settle()
	n := app.connected.Load()
	c = connect(t, inbound)
	err := tls.Client(c, &tls.Config{ServerName: "store", MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context())
	if app.connected.Load() != n+1 || err == nil || !strings.Contains(err.Error(), "not look like a TLS handshake") { // it is the banner
		t.Errorf("the application's own TLS: %v, %d connections", err, app.connected.Load()-n)
	}
	_ = c.Close()
	anybody.Store(false)

	// Each has an end, which a lifetime of 2 s puts at 1.
	short := store
	short.Input.SVIDLifetime = 2 * time.Second
	callee.publish(short, pki)
	callee.settle()
	silent, used := open("web"), open("web")
	if got, closed := say(t, used, "hello", 4*time.Second); got != banner+"hello" || !closed {
		t.Errorf("a connection in use: %q, ended %v", got, closed)
	}
	if got, closed := say(t, silent, "", 2*time.Second); got != "" || !closed {
		t.Errorf("a silent one: %q, ended %v", got, closed)
	}
	_, _ = silent.Close(), used.Close()

	// Nobody to ask.
	n = app.connected.Load()
	authz.stop()
	c = open("web")
	if got, closed := say(t, c, "hello", 5*time.Second); got != "" || !closed || app.connected.Load() != n {
		t.Errorf("without an answer: %q, closed %v", got, closed)
	}
	_ = c.Close()
	callee.envoy.Wait(t, "the proxy's record of it", func() bool {
		for line := range strings.Lines(callee.envoy.Log()) {
			d, ok := own.ParseLine(strings.TrimSpace(line))
			if ok && own.Of(d).Name == "undecided" && d.Source == "spiffe://test.example/shop/web" && d.Method == "tcp" && d.Host == fmt.Sprintf("port %d", app.port()) {
				return true
			}
		}
		return false
	})
	wayout.stop()
	before = came()
	c = connect(t, out)
	if got, closed := say(t, c, "hello", 5*time.Second); got != "" || !closed || came() != before {
		t.Errorf("without an answer at the way out: %q, closed %v", got, closed)
	}
	_ = c.Close()

	strict = true
	callee.publish(store, pki)
	callee.settle()
	c = connect(t, inbound)
	if got, closed := say(t, c, "hello", 5*time.Second); got != "" || !closed || app.connected.Load() != n {
		t.Errorf("plaintext at STRICT: %q, closed %v", got, closed)
	}
	_ = c.Close()
	_ = caller
}
