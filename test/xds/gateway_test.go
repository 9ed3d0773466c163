package xdstest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
	"signet.example/xds/predict"
)

// echoes says who it is and what it saw.
func echoes(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-By", name)
		w.Header().Set("X-Path", r.RequestURI)
		w.Header().Set("X-Host", r.Host)
	})
}

// gatewaySpecs makes gateway routes and the routes of services behind them, of texts that
// meet each other.
type gatewaySpecs struct{ *rand.Rand }

func (g gatewaySpecs) pick(from ...string) string { return from[g.IntN(len(from))] }

const (
	edgeRoute    = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: %s}\nspec: {%shttpRoute: {match: {%s}, action: {rewrite: {%s}, target: {virtualService: {virtualServiceRef: {name: %s}}}}}}\n"
	serviceRoute = "    - {name: %s, httpRoute: {match: {%s}, action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: 1}]}}}\n"
)

func (g gatewaySpecs) conditions() string {
	return g.pick("", "", "", ", headers: [{name: x-h}]", ", headers: [{name: x-h, match: {exact: '1'}}]", ", method: POST", ", queryParameters: [{name: q}]")
}

// manifest has one route for /ready-<n>, by which a test sees that it is in force.
func (g gatewaySpecs) manifest(n int) string {
	text := "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: edge}\nspec: {listeners: [{portMapping: {port: PORT, protocol: http}}]}\n"
	text += fmt.Sprintf(edgeRoute, "ready", "priority: 0, ", fmt.Sprintf("path: {exact: /ready-%d}", n), "", "s1")
	if g.IntN(2) == 0 {
		text += fmt.Sprintf(edgeRoute, "all", "", "prefix: /", "", "s1")
	}
	for i := range 1 + g.IntN(6) {
		match, rewrite := "", ""
		switch g.IntN(4) {
		case 0:
			match = "path: {exact: " + g.pick("/x", "/x/", "/x/y", "/v/1", "/") + "}"
			rewrite = g.pick("", "path: {exact: /v/1}", "path: {exact: /y}")
		case 1:
			match = "path: {regex: '" + g.pick("/x/[a-z]+", ".*", "/(?:x|v)/.+", "/[a-z]") + "'}"
			rewrite = g.pick("", "path: {exact: /v/2}")
		default:
			match = "prefix: " + g.pick("/", "/x", "/x/", "/x/y", "/v/")
			rewrite = g.pick("", "", "prefix: {defaultPrefix: DISABLED}", "prefix: {value: /v/}", "prefix: {value: /v}", "prefix: {value: /x/}")
		}
		match += g.pick("", "", ", hostname: {exact: a.example}", ", hostname: {suffix: .EXAMPLE}") + g.conditions()
		if g.IntN(4) == 0 {
			rewrite = strings.TrimPrefix(rewrite+", hostname: {defaultTargetHostname: DISABLED}", ", ")
		}
		text += fmt.Sprintf(edgeRoute, fmt.Sprint("g", i), g.pick("", "", "priority: 3, "), match, rewrite, g.pick("s1", "s2", "s3"))
	}
	for _, name := range []string{"s1", "s2"} {
		text += "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: " + name + "}\nspec: {awsName: " + name + ".internal, provider: {virtualRouter: {virtualRouterRef: {name: " + name + "}}}}\n" +
			"---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: " + name + "}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes:\n"
		text += fmt.Sprintf(serviceRoute, "ready", fmt.Sprintf("path: {exact: /ready-%d}", n), "n1")
		if g.IntN(2) == 0 {
			text += fmt.Sprintf(serviceRoute, "all", "prefix: /", "n3")
		}
		for i := range 1 + g.IntN(5) {
			match := "prefix: " + g.pick("/", "/v", "/v/", "/y", "/x", "/x/y")
			switch g.IntN(4) {
			case 0:
				match = "path: {exact: " + g.pick("/", "/v/1", "/y", "/x/y", "/v/y") + "}"
			case 1:
				match = "path: {regex: '" + g.pick("/[a-z]+", "/v/[0-9]+", "/(?:y|v/1)", ".*y", "/v(?:/y)?") + "'}"
			}
			text += fmt.Sprintf(serviceRoute, fmt.Sprint("r", i), match+g.conditions(), g.pick("n1", "n2", "n3"))
		}
	}
	return text + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: s3}\nspec: {awsName: s3.internal, provider: {virtualNode: {virtualNodeRef: {name: n1}}}}\n"
}

// asked is a request to a gateway.
type asked struct{ method, host, path, query, header string }

func (g gatewaySpecs) request() asked {
	return asked{
		method: g.pick("GET", "GET", "POST"), host: g.pick("a.example", "A.Example", "b.example", "other.test"),
		path: g.pick("/", "/x", "/x/", "/x/y", "/x/yz", "/x/y/z", "/xy", "/xv/1", "/v", "/v/1", "/v/y", "/x/v/1", "/x/v/y", "/y", "/x/1", "/z",
			"/x../y", "/x..", "/x./y", "/x.../y", "/x/y../v/1"),
		query: g.pick("", "", "?q=1", "?q=/x/y", "?/v/1", "?y"), header: g.pick("", "", "X-H: 1\r\n", "X-H: 2\r\n"),
	}
}

// foretold holds what Envoy did against what is predicted of it.
func (a asked) foretold(t *testing.T, rc *routev3.RouteConfiguration, code int, by string) {
	t.Helper()
	r := predict.Request{Method: a.method, Scheme: "http", Authority: a.host, Path: a.path + a.query, Headers: map[string][]string{}}
	if name, value, ok := strings.Cut(strings.TrimSuffix(a.header, "\r\n"), ": "); ok {
		r.Headers[strings.ToLower(name)] = []string{value}
	}
	out, err := predict.Of(rc, r)
	if err != nil {
		t.Fatal(err)
	}
	if d := out.Route.GetDirectResponse(); d != nil {
		if int(d.GetStatus()) != code {
			t.Errorf("%+v: %d, and %d was predicted", a, code, d.GetStatus())
		}
		return
	}
	if to := out.Route.GetRoute().GetCluster(); code != http.StatusOK || !strings.Contains(to, "_"+by+"_") {
		t.Errorf("%+v: %d by %q, and %s was predicted, which leads to %q", a, code, by, out.Route.GetName(), to)
	}
}

// firstHop is what App Mesh's gateway made of a request before it sent it to itself:
// which service, and as what.
func firstHop(g *mesh.Gateway, a asked) (r *mesh.GatewayRoute, path string) {
	for _, r := range g.Routes {
		m := r.Match
		whole := m.Path == a.path || m.PathRegex != "" && regexp.MustCompile("^(?:"+m.PathRegex+")$").MatchString(a.path)
		byPrefix := m.Path == "" && m.PathRegex == "" && strings.HasPrefix(a.path, m.Prefix)
		host := strings.ToLower(a.host)
		if !whole && !byPrefix || r.Host.Exact != "" && host != r.Host.Exact || !strings.HasSuffix(host, r.Host.Suffix) ||
			m.Method != "" && m.Method != a.method || len(m.Query) > 0 && !strings.HasPrefix(a.query, "?q=") {
			continue
		}
		fits := true
		for _, h := range m.Headers {
			fits = fits && (a.header != "" && h.Exact == "" || a.header == "X-H: 1\r\n")
		}
		if !fits {
			continue
		}
		path := a.path
		switch to := r.Rewrite; {
		case to.Path != "":
			path = to.Path
		case byPrefix && to.Prefix != "":
			rest := a.path[len(m.Prefix):]
			if strings.HasSuffix(to.Prefix, "/") {
				rest = strings.TrimPrefix(rest, map[bool]string{false: "/"}[strings.HasSuffix(m.Prefix, "/")])
			}
			path = to.Prefix + rest
		}
		return r, path
	}
	return nil, ""
}

// gatewayPair is a gateway, and a node whose proxy calls the same services.
type gatewayPair struct {
	caller *caller
	edge   *running
	at     string
	pki    *pki
}

func (p *gatewayPair) cases(t *testing.T, manifest string) (front, edge xdstest.Case) {
	t.Helper()
	front = p.caller.with(t, manifest)
	edge = front
	edge.Name, edge.Node, edge.Gateway = "edge", "edge", true
	edge.Shape.Suit(edge.Ref())
	edge.Shape.Bind = p.at
	return front, edge
}

// inForce waits until both Envoys serve by the manifest of this number.
func (p *gatewayPair) inForce(t *testing.T, at string, n int) {
	t.Helper()
	ready := func(to, target string) bool {
		return corpus.Status(raw(t, to, fmt.Sprintf("GET %s/ready-%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target, n))) == http.StatusOK
	}
	eventually(t, "the routes are in force", func() bool {
		return ready(at, "") && ready(p.caller.out, "http://s1.internal") && ready(p.caller.out, "http://s2.internal")
	})
}

var strayPath = regexp.MustCompile(`/\.{1,2}(?:/|$)`)

func TestAGatewayServesWhatTwoHopsWould(t *testing.T) {
	specs, requests := 8, 40
	if os.Getenv("SOAK") == "1" {
		specs, requests = 150, 200
	}
	g := gatewaySpecs{rand.New(rand.NewPCG(8, 1))}
	p := &gatewayPair{at: loopback(), pki: newPKI(t)}
	nodes := []callee{{"n1", plain("http"), echoes("n1")}, {"n2", plain("http"), echoes("n2")}, {"n3", plain("http"), echoes("n3")}}
	p.caller = startCaller(t, g.manifest(0), []string{"s1", "s2", "s3"}, nodes...)
	served, refused, stray, answered := 0, 0, 0, map[int]int{}
	for served < specs {
		manifest := g.manifest(served)
		front, edge := p.cases(t, manifest)
		if _, err := xds.Build(edge.Input, edge.Ref(), edge.Shape); err != nil {
			if !strings.Contains(err.Error(), "cannot be looked for") {
				t.Fatal(err)
			}
			refused++
			continue
		}
		served++
		p.caller.proxy.publish(front, p.pki)
		p.caller.proxy.settle()
		if p.edge == nil {
			p.edge = startProxy(t, edge, p.pki)
		} else {
			p.edge.publish(edge, p.pki)
			p.edge.settle()
		}
		gateway, foretold := edge.Input.Graph.Node(edge.Ref()).Gateway, routesOf(t, edge, "rds_ingress")
		at := net.JoinHostPort(p.at, fmt.Sprint(p.caller.port))
		p.inForce(t, at, served-1)
		for range requests {
			a := g.request()
			got := raw(t, at, fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: %s:99\r\nContent-Length: 0\r\nConnection: close\r\n%s\r\n", a.method, a.path, a.query, a.host, a.header))
			code := corpus.Status(got)
			answered[code]++
			a.foretold(t, foretold, code, got.Header.Get("X-By"))
			r, path := firstHop(gateway, a)
			if r == nil {
				if code != http.StatusNotFound {
					t.Fatalf("%+v: %d, want 404: no gateway route takes it\n%s", a, code, manifest)
				}
				continue
			}
			if r.Rewrite.Prefix != "" && strayPath.MatchString(path) {
				// The second hop normalised this to a path that no policy of the gateway's was asked about.
				if code != http.StatusNotFound {
					t.Fatalf("%+v: %d, and route %s makes %s of it\n%s", a, code, r.Name, path, manifest)
				}
				stray++
				continue
			}
			want := raw(t, p.caller.out, fmt.Sprintf("%s http://%s%s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n%s\r\n", a.method, r.Service.Name, path, a.query, a.header))
			if code != corpus.Status(want) {
				t.Fatalf("%+v: %d, and route %s as %s%s: %d\n%s", a, code, r.Name, r.Service.Name, path, corpus.Status(want), manifest)
			}
			if code != http.StatusOK {
				continue
			}
			for _, h := range []string{"X-By", "X-Path"} {
				if got.Header.Get(h) != want.Header.Get(h) {
					t.Fatalf("%+v: %s %q, and route %s as %s%s: %q\n%s", a, h, got.Header.Get(h), r.Name, r.Service.Name, path, want.Header.Get(h), manifest)
				}
			}
			host := r.Service.Name
			if r.Rewrite.KeepHost {
				host = a.host
			}
			if got.Header.Get("X-Host") != host {
				t.Fatalf("%+v: the host is %q, want %q\n%s", a, got.Header.Get("X-Host"), host, manifest)
			}
		}
	}
	t.Logf("%d gateways, %d refused; %d paths that a rewrite would bend; answers %v", served, refused, stray, answered)
	if answered[200] < specs*requests/5 || answered[404] < specs || stray == 0 {
		t.Errorf("the answers are of one sort: %v, %d", answered, stray)
	}
}

const edgeTLS = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
    - portMapping: {port: 1443, protocol: http}
      tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}
    - portMapping: {port: 1444, protocol: http}
      tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}, validation: {trust: {acm: {certificateAuthorityARNs: [a]}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: all}
spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: s}
spec: {awsName: s.internal, provider: {virtualNode: {virtualNodeRef: {name: n}}}}
`

func TestAGatewayAsksForAuthorizationAndForCertificatesAsItsListenersSay(t *testing.T) {
	var seen http.Header
	serve := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })
	c := startCaller(t, edgeTLS, []string{"s"}, callee{"n", plain("http"), serve})
	p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
	_, edge := p.cases(t, edgeTLS)
	startProxy(t, edge, p.pki)
	plainAt := net.JoinHostPort(p.at, fmt.Sprint(c.port))
	if code := corpus.Status(raw(t, plainAt, "GET /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); code != http.StatusForbidden || seen != nil {
		t.Errorf("what the policy denies: %d, and the service saw %v", code, seen)
	}
	raw(t, plainAt, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Signet-Denied: no\r\nX-Envoy-Original-Path: /other\r\nX-Forwarded-Client-Cert: By=me\r\nX-Forwarded-Host: evil\r\nSignet-By-Gateway: no\r\n\r\n")
	if by := seen.Values(proxy.HeaderByGateway); !slices.Equal(by, []string{"true"}) {
		t.Errorf("what the gateway passes on is marked %q", by)
	}
	for _, h := range []string{"X-Signet-Denied", "X-Forwarded-Host", "X-Forwarded-Client-Cert"} {
		if seen.Get(h) != "" {
			t.Errorf("a caller's %s reaches the service: %q", h, seen.Get(h))
		}
	}
	if who := c.stub.lastCheck().GetSource().GetPrincipal(); who != "" {
		t.Errorf("a caller in plaintext is %q", who)
	}
	dial := func(port string, certificates ...tls.Certificate) error {
		conn, err := tls.Dial("tcp", net.JoinHostPort(p.at, port), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: certificates}) //nolint:gosec // looked at below
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // one request
		if id := conn.ConnectionState().PeerCertificates[0].URIs; len(id) != 1 || id[0].String() != "spiffe://test.example/shop/edge" {
			t.Errorf("the gateway shows %v", id)
		}
		if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			return err
		}
		head := make([]byte, len("HTTP/1.1 200"))
		if _, err := conn.Read(head); err != nil {
			return err
		}
		if string(head) != "HTTP/1.1 200" {
			return fmt.Errorf("answers %q", head)
		}
		return nil
	}
	if err := dial("1443"); err != nil {
		t.Errorf("a caller without a certificate, where none is asked for: %v", err)
	}
	if err := dial("1444"); err == nil {
		t.Error("a caller without a certificate is served where one is asked for")
	}
}

const edgeGRPC = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {listeners: [{portMapping: {port: PORT, protocol: grpc}}, {portMapping: {port: 1082, protocol: http2}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: tests}
spec:
  grpcRoute:
    match: {serviceName: grpc.testing.TestService, hostname: {suffix: .example}, metadata: [{name: x-what, match: {exact: closed}, invert: true}]}
    action: {target: {virtualService: {virtualServiceRef: {name: s}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: site}
spec:
  http2Route:
    match: {prefix: /site, port: 1082}
    action: {target: {virtualService: {virtualServiceRef: {name: s}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: s}
spec: {awsName: s.internal, provider: {virtualRouter: {virtualRouterRef: {name: s}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: s}
spec:
  listeners: [{portMapping: {port: 80, protocol: grpc}}]
  routes:
    - name: unary
      grpcRoute:
        match: {serviceName: grpc.testing.TestService, methodName: UnaryCall}
        action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}
    - name: broken
      http2Route:
        match: {path: {exact: /broken}}
        action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}
        retryPolicy: {httpRetryEvents: [server-error], maxRetries: 3, perRetryTimeout: {unit: s, value: 2}}
    - name: page
      http2Route:
        match: {path: {exact: /page}}
        action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}
`

func TestAGatewayTakesCallsOfGRPCAndOfHTTP2ByTheirRoutes(t *testing.T) {
	app, server := &callable{calls: map[string]int{}}, grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, app)
	var host string
	broken := 0
	both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		switch r.URL.Path {
		case "/page":
		case "/broken":
			broken++
			w.WriteHeader(http.StatusInternalServerError)
		default:
			server.ServeHTTP(w, r)
		}
	})
	c := startCaller(t, edgeGRPC, []string{"s"}, callee{"n", plain("grpc"), both})
	p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
	_, edge := p.cases(t, edgeGRPC)
	startProxy(t, edge, p.pki)
	at := net.JoinHostPort(p.at, fmt.Sprint(c.port))
	call := func(authority, what string) error {
		conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority), grpc.WithDisableRetry(), grpc.WithNoProxy())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }() // one call
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-what", what), 10*time.Second)
		defer cancel()
		_, err = grpc_testing.NewTestServiceClient(conn).UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		return err
	}
	if err := call("a.example", "plain"); err != nil || host != "s.internal" {
		t.Errorf("a call: %v, of host %q", err, host)
	}
	for what, authority := range map[string]string{"elsewhere": "other.test", "closed": "a.example"} {
		if err := call(authority, what); status.Code(err) != codes.Unimplemented || app.count(what) != 0 {
			t.Errorf("%s: %v, %d times", what, err, app.count(what))
		}
	}
	if code := headers2(t, at, [2]string{":method", "POST"}, [2]string{":scheme", "http"}, [2]string{":authority", "a.example"}, [2]string{":path", "/grpc.testing.TestService/UnaryCall"}); code != http.StatusNotFound {
		t.Errorf("what is no gRPC: %d", code)
	}
	page := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.example"}, {":path", "/site/page"}}
	if code := headers2(t, net.JoinHostPort(p.at, "1082"), page...); code != http.StatusOK {
		t.Errorf("a page by HTTP/2: %d", code)
	}
	page[3][1] = "/site/broken"
	if code := headers2(t, net.JoinHostPort(p.at, "1082"), page...); code != http.StatusInternalServerError || broken != 4 {
		t.Errorf("the service's own retries: %d after %d tries, want 4", code, broken)
	}
	if code := headers2(t, at, page...); code != http.StatusNotFound {
		t.Errorf("a page at the other port: %d", code)
	}
}

func TestAGatewaysPoolBoundsWhatEachOfItsTargetsGetsAtOnce(t *testing.T) {
	before, rest, _ := strings.Cut(edgeTLS, "    - portMapping: {port: 1443")
	_, rest, _ = strings.Cut(rest, "---\n")
	manifest := before + "      connectionPool: {http: {maxConnections: 2, maxPendingRequests: 1}}\n---\n" + rest
	hold, arrived := make(chan struct{}), make(chan struct{}, 8)
	c := startCaller(t, manifest, []string{"s"}, callee{"n", plain("http"), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-hold
	})})
	p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
	_, edge := p.cases(t, manifest)
	startProxy(t, edge, p.pki)
	const asked = 8
	codes := make(chan int, asked)
	ask := func() { // ends with its answer
		r := raw(t, net.JoinHostPort(p.at, fmt.Sprint(c.port)), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if code := corpus.Status(r); code == http.StatusOK || r.Header.Get("X-Signet-Not-Served") == "true" {
			codes <- code
		} else {
			codes <- -code
		}
	}
	for range 2 { // are under way
		go ask()
		<-arrived
	}
	for range asked - 2 { // one of them waits
		go ask()
	}
	for range asked - 3 {
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Errorf("what is beyond the pool: %d", code)
		}
	}
	close(hold)
	for range 3 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("what fits: %d", code)
		}
	}
}

// A gateway makes expressions of its own: of a prefix and what is behind it, and of two.
func TestEnvoyTakesEveryExpressionThatAGatewayMakes(t *testing.T) {
	want := 80
	if os.Getenv("SOAK") == "1" {
		want = 2000
	}
	r := rand.New(rand.NewPCG(5, 2))
	of := func(i int, expression string) string {
		name := fmt.Sprint("s", i)
		match := fmt.Sprintf("prefix: /a%d.b/", i)
		if i%3 == 0 { // two expressions
			match = fmt.Sprintf("path: {regex: '/a%d/.*'}", i)
		}
		return fmt.Sprintf(edgeRoute, name, "", match, "", name) + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: " + name + "}\nspec: {provider: {virtualRouter: {virtualRouterRef: {name: " + name + "}}}}\n---\n" + routerOf(name, []string{expression})
	}
	const head = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n" +
		"---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: edge}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	c := xdstest.Case{Name: "edge", Mesh: "shop", Node: "edge", Gateway: true, Shape: xdstest.Shape, Input: xds.Input{TrustDomain: xdstest.TrustDomain}}
	c.Shape.Suit(c.Ref())
	c.Shape.Bind = loopback()
	all, taken, refused := head, 0, map[string]int{}
	var p *running
	keys := newPKI(t)
	serve := func() { // so many at once as one listener may have
		c.Input.Graph = graphtest.Graph(t, "mesh.yaml", []byte(all))
		if p == nil {
			p = startProxy(t, c, keys)
		} else {
			p.publish(c, keys)
			p.settle()
		}
		all = head
	}
	for taken < want {
		expression := regexOf(r, 3)
		if taken%2 == 0 {
			expression = "/" + expression
		}
		if why := mesh.RegexProblem(expression); expression == "" || why != "" || len(expression) > 255 {
			continue
		}
		one := of(taken, expression)
		c.Input.Graph = graphtest.Graph(t, "mesh.yaml", []byte(head+one))
		if _, err := xds.Build(c.Input, c.Ref(), c.Shape); err != nil {
			for _, why := range []string{"cannot be looked for", "together they ask"} {
				if strings.Contains(err.Error(), why) {
					refused[why]++
				}
			}
			continue
		}
		all += one
		if taken++; taken%400 == 0 {
			serve()
		}
	}
	t.Logf("%d taken, refused %v", taken, refused)
	if refused["cannot be looked for"] == 0 || refused["together they ask"] == 0 {
		t.Errorf("the expressions are of one sort: %v", refused)
	}
	if all != head {
		serve()
	}
}
