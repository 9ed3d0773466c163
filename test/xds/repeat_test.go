package xdstest_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// mortal is an application that counts what it got, by "METHOD /path" and what a proxy said
// to itself in it as toldProxy, and then ends the connection or answers as the path says.
type mortal struct {
	address string
	port    uint32

	mu  sync.Mutex
	got map[string]int // guarded by mu
}

const toldProxy = "headers about retries"

func startMortal(t *testing.T) *mortal {
	t.Helper()
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	m := &mortal{address: host, port: uint32(n), got: map[string]int{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { m.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return m
}

func (m *mortal) serve(conn *net.TCPConn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body := make([]byte, r.ContentLength)
		if _, err := in.Read(body); err != nil && len(body) > 0 {
			return
		}
		key := r.Method + " " + r.URL.Path
		m.mu.Lock()
		m.got[key]++
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Envoy-Retr") {
				m.got[toldProxy]++
			}
		}
		first := m.got[key] == 1
		m.mu.Unlock()
		switch what := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; what {
		case "reset":
			_ = conn.SetLinger(0)
			return
		case "close":
			return
		case "half":
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Le"))
			_ = conn.SetLinger(0)
			return
		case "slow":
			time.Sleep(1500 * time.Millisecond)
			return
		case "idle": // the connection that is kept ends under the second request
			if !first {
				_ = conn.SetLinger(0)
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		default: // what an application says of itself; nor may it say it was not served
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s X\r\nX-Signet-Not-Served: true\r\nX-Signet-Denied: unavailable\r\nContent-Length: 0\r\n\r\n", what)
		}
	}
}

// seen is how often a request arrived since it was taken.
func (m *mortal) seen(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got[key]
}

// take returns how often a request arrived since the last call.
func (m *mortal) take(key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.got[key]
	delete(m.got, key)
	return n
}

// retryPolicies are those that a route may declare; none is the default.
var retryPolicies = map[string]string{
	"none":       "",
	"gateway":    "httpRetryEvents: [gateway-error]",
	"server":     "httpRetryEvents: [server-error]",
	"client":     "httpRetryEvents: [client-error]",
	"stream":     "httpRetryEvents: [stream-error]",
	"connection": "tcpRetryEvents: [connection-error]",
	"all":        "httpRetryEvents: [gateway-error, server-error, client-error, stream-error], tcpRetryEvents: [connection-error]",
}

// repeatMesh is a caller, the node it calls by a service for each retry policy,
// and a node whose application is not there.
func repeatMesh(m *mortal) string {
	const router = `
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: NODE-NAME}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  routes:
    - name: all
      httpRoute:
        match: {prefix: /}
        action: {weightedTargets: [{virtualNodeRef: {name: NODE}, weight: 1}]}
RETRY
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: NODE-NAME}
spec: {awsName: NAME.NODE.internal, provider: {virtualRouter: {virtualRouterRef: {name: NODE-NAME}}}}`
	const node = `
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: NODE}
spec: {listeners: [{portMapping: {port: PORT, protocol: http}}]}`
	var text, backends strings.Builder
	for _, n := range []string{"orders", "gone"} {
		text.WriteString(strings.ReplaceAll(node, "NODE", n))
		for name, events := range retryPolicies {
			retry := ""
			if events != "" {
				retry = "        retryPolicy: {" + events + ", maxRetries: 3, perRetryTimeout: {unit: ms, value: 700}}"
			}
			text.WriteString(strings.NewReplacer("NODE", n, "NAME", name, "RETRY", retry).Replace(router))
			fmt.Fprintf(&backends, "    - virtualService: {virtualServiceRef: {name: %s-%s}}\n", n, name)
		}
	}
	front := "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front}\nspec:\n  backends:\n" + backends.String()
	const shop = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n"
	return strings.ReplaceAll(shop+front+text.String(), "PORT", strconv.FormatUint(uint64(m.port), 10))
}

// served is the mesh of repeatMesh, running.
type served struct {
	app          *mortal
	stub         *stub
	orders, gone *running
	out          string // the caller's way out
}

func startMesh(t *testing.T) *served {
	t.Helper()
	m := &served{app: startMortal(t), stub: startStub(t)}
	wayout := startStub(t) // who may call goes on being answered when nobody decides
	pki, graph := newPKI(t), graphtest.Graph(t, "mesh.yaml", []byte(repeatMesh(m.app)))
	at := map[string]string{"orders": loopback(), "gone": loopback(), "front": loopback()}
	start := func(name, application string) *running {
		return startProxy(t, xdstest.Case{
			Name: name, Mesh: "shop", Node: name,
			Input: xds.Input{
				Graph: graph, TrustDomain: xdstest.TrustDomain,
				Endpoints: func(node proxy.Ref, port uint32) []xds.Endpoint {
					return []xds.Endpoint{{Address: at[node.Name], Port: port, Healthy: true}}
				},
			},
			Shape: proxy.Shape{Bind: at[name], App: application, Egress: xdstest.EgressOn(at[name]), AuthzSocket: m.stub.socket, WayoutSocket: wayout.socket},
		}, pki)
	}
	m.orders, m.gone = start("orders", m.app.address), start("gone", loopback())
	start("front", m.app.address)
	m.out = xdstest.EgressOn(at["front"]).String()
	return m
}

// call sends one request by the caller's proxy to the service of a retry policy.
func (m *served) call(t *testing.T, policy, node, method, path string) *http.Response {
	t.Helper()
	return raw(t, m.out, fmt.Sprintf("%s http://%s.%s.internal%s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", method, policy, node, path))
}

func TestWhatMayHaveBeenServedIsNotSentAgain(t *testing.T) {
	m := startMesh(t)
	app, gone, stub := m.app, m.gone, m.stub
	call := func(policy, node, method, path string) *http.Response { return m.call(t, policy, node, method, path) }
	for policy := range retryPolicies {
		// Each way in which a served request can end, or an application can answer.
		for _, end := range []string{"reset", "close", "half", "slow", "500", "502", "503", "504", "409"} {
			for _, method := range []string{"POST", "PATCH", "PURGE"} { // nobody here knows what the last one does
				if end == "slow" && (method != "POST" || policy != "all" && policy != "gateway") {
					continue // a second each
				}
				path := "/" + policy + "/" + end
				resp := call(policy, "orders", method, path)
				if n := app.take(method + " " + path); n != 1 {
					t.Errorf("%s %s under retry policy %s: the application got it %d times", method, end, policy, n)
				}
				if code := corpus.Status(resp); code < 400 {
					t.Errorf("%s %s: answered %d", method, path, code)
				}
				if resp != nil && (resp.Header.Get("X-Signet-Not-Served") != "" || resp.Header.Get("X-Signet-Denied") != "") {
					t.Errorf("%s %s: the application speaks for its proxy: %v", method, path, resp.Header)
				}
			}
		}
		// What was certainly not served is sent again, whatever the method.
		before := gone.requests(t)
		resp := call(policy, "gone", "POST", "/q")
		tried, want := gone.requests(t)-before, 1
		if slices.Contains([]string{"none", "gateway", "server", "all"}, policy) {
			want = map[string]int{"none": 3}[policy]
			if want == 0 {
				want = 4
			}
		}
		if tried != want || corpus.Status(resp) != http.StatusServiceUnavailable {
			t.Errorf("no application, policy %s: tried %d times, want %d; %d", policy, tried, want, corpus.Status(resp))
		}
	}

	// The connection that was kept for it ends under the second request.
	call("none", "orders", "POST", "/kept/idle")
	call("none", "orders", "POST", "/kept/idle")
	if n := app.take("POST /kept/idle"); n != 2 {
		t.Errorf("two requests over a connection that ended under the second: the application got %d", n)
	}

	// An idempotent request is repeated where the route says so, and by default
	// only if the callee answers 503, as App Mesh did.
	for _, row := range []struct {
		policy, end string
		want        int
	}{
		{"none", "reset", 1},
		{"none", "close", 1},
		{"none", "502", 1},
		{"none", "503", 3},
		{"gateway", "reset", 4},
		{"gateway", "503", 4},
		{"gateway", "500", 1},
		{"server", "500", 4},
		{"client", "409", 4},
		{"stream", "reset", 1},
		{"connection", "reset", 1},
	} {
		path := "/" + row.policy + "/" + row.end
		call(row.policy, "orders", "GET", path)
		if n := app.take("GET " + path); n != row.want {
			t.Errorf("GET %s under retry policy %s: the application got it %d times, want %d", row.end, row.policy, n, row.want)
		}
	}

	// The caller is told which it was.
	for path, want := range map[string]int{"/x/reset": 502, "/x/close": 502, "/x/half": 502} {
		if code := corpus.Status(call("none", "orders", "POST", path)); code != want {
			t.Errorf("POST %s: %d, want %d", path, code, want)
		}
	}
	// Nothing was served while nobody could decide.
	stub.stop()
	if r := call("none", "orders", "POST", "/x/200"); corpus.Status(r) != 503 || r.Header.Get("X-Signet-Denied") != "unavailable" || app.take("POST /x/200") != 0 {
		t.Errorf("without authorization: %v", r)
	}
}

func TestACallerIsToldWhetherItsRequestWasSentWhenTheCalleesProxyDies(t *testing.T) {
	m := startMesh(t)
	var wg sync.WaitGroup
	wg.Go(func() { // while the request is served
		eventually(t, "the request arrived", func() bool { return m.app.seen("POST /dies/slow") > 0 })
		_ = syscall.Kill(m.orders.envoy.PID(), syscall.SIGKILL)
	})
	r := m.call(t, "none", "orders", "POST", "/dies/slow")
	wg.Wait()
	if corpus.Status(r) != http.StatusBadGateway || r.Header.Get("X-Signet-Not-Served") != "" || m.app.take("POST /dies/slow") != 1 {
		t.Errorf("the callee's proxy died under a POST: %v", r)
	}
	if r := m.call(t, "none", "orders", "POST", "/x/200"); corpus.Status(r) != http.StatusServiceUnavailable || r.Header.Get("X-Signet-Not-Served") != "true" {
		t.Errorf("the callee's proxy is gone: %v", r)
	}
}

// requests that came in.
func (p *running) requests(t *testing.T) int {
	t.Helper()
	n := 0
	for name, value := range p.envoy.Stats(t, `http\.ingress\.downstream_rq_total`) {
		if strings.HasPrefix(name, "http.ingress") {
			n += int(value)
		}
	}
	return n
}

// A9-33: who is outside of the mesh said for a proxy of ours that a request was not served.
func TestAStrangersAnswerSaysNothingForAProxy(t *testing.T) {
	app, stub, bind := startMortal(t), startStub(t), loopback()
	text := strings.NewReplacer("PORT", strconv.FormatUint(uint64(app.port), 10), "ADDRESS", app.address).Replace(`
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: outside}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  serviceDiscovery: {dns: {hostname: ADDRESS}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: outside}
spec: {awsName: none.outside.internal, provider: {virtualNode: {virtualNodeRef: {name: outside}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec: {backends: [{virtualService: {virtualServiceRef: {name: outside}}}]}
`)
	startProxy(t, xdstest.Case{
		Name: "front", Mesh: "shop", Node: "front",
		Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain},
		Shape: proxy.Shape{Bind: bind, App: "127.0.0.1", Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
	}, newPKI(t))
	m := &served{app: app, out: xdstest.EgressOn(bind).String()}
	for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		path := fmt.Sprint("/pay/", status)
		var r *http.Response
		eventually(t, "the stranger is called", func() bool {
			r = m.call(t, "none", "outside", "POST", path)
			return app.seen("POST "+path) > 0
		})
		if n := app.take("POST " + path); n != 1 || corpus.Status(r) != status {
			t.Errorf("a POST that was answered %d: the stranger got it %d times, %v", status, n, r)
		}
		for name := range r.Header {
			if strings.HasPrefix(strings.ToLower(name), proxy.HeaderPrefix) {
				t.Errorf("a stranger's %s reaches the application", name)
			}
		}
	}
	m.call(t, "none", "outside", "GET", "/again/503")
	if n := app.take(toldProxy); n > 0 || app.take("GET /again/503") != 3 {
		t.Errorf("a GET that is answered 503: the stranger is told %d headers for a proxy", n)
	}
}
