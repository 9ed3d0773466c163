package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/proxy/answers"
	"signet.example/test/alb"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// awkward is an application that does what the path says: of each way in which one fails.
func awkward() meshtest.App {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the request as a whole
		switch r.URL.Path {
		case "/long":
			<-r.Context().Done()
		case "/slow", "/slow-try", "/idle":
			select {
			case <-time.After(3 * time.Second):
			case <-r.Context().Done():
			}
		case "/reset", "/garbage", "/cut":
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, map[string]string{"/reset": "", "/garbage": "no HTTP at all\r\n\r\n", "/cut": "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"}[r.URL.Path])
			if r.URL.Path == "/cut" {
				time.Sleep(100 * time.Millisecond) // so that the caller's proxy has begun to answer
			}
			_ = c.Close()
		}
	})
}

// answersPolicy fails in two ways, by path: it is of two minds, or sets more headers than a request may have.
var answersPolicy = `package signet.authz

allow contains "all but one" if input.request.path != "/admin"

allow contains "all connections" if input.connection

role := "one" if input.request.path == "/conflict"

role := "another" if input.request.path == "/conflict"

allow contains "a role" if role == "one"

kilo := concat("", [x | some i in numbers.range(1, 4000); x := "a"])
`

func init() {
	for i := range 16 {
		answersPolicy += fmt.Sprintf("\nheaders[\"x-more-%d\"] := kilo if input.request.path == \"/headers\"\n", i)
	}
}

// node of a protocol on a port, whose listener has extra.
func listening(name string, port int, protocol, extra string, backends ...string) string {
	m := meshtest.VirtualNode(name, extra, backends...)
	return strings.Replace(m, fmt.Sprintf("{port: %d, protocol: http}", meshtest.AppPort), fmt.Sprintf("{port: %d, protocol: %s}", port, protocol), 1)
}

// routed is a service whose router takes some paths only, each with its time.
const routed = `apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: back}
spec:
  meshRef: {name: test}
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  routes:
    - name: slow-try
      httpRoute:
        match: {prefix: /slow-try}
        action: {weightedTargets: [{virtualNodeRef: {name: back}, weight: 1}]}
        retryPolicy: {maxRetries: 1, perRetryTimeout: {unit: ms, value: 200}, httpRetryEvents: [gateway-error]}
    - name: slow
      httpRoute:
        match: {prefix: /slow}
        action: {weightedTargets: [{virtualNodeRef: {name: back}, weight: 1}]}
        timeout: {perRequest: {unit: ms, value: 200}}
    - name: idle
      httpRoute:
        match: {prefix: /idle}
        action: {weightedTargets: [{virtualNodeRef: {name: back}, weight: 1}]}
        timeout: {idle: {unit: ms, value: 200}}
`

func routesTo(paths ...string) string {
	var b strings.Builder
	for _, path := range paths {
		fmt.Fprintf(&b, "    - name: r%s\n      httpRoute:\n        match: {prefix: %s}\n        action: {weightedTargets: [{virtualNodeRef: {name: back}, weight: 1}]}\n", strings.ReplaceAll(path, "/", "-"), path)
	}
	return b.String()
}

// provoked is an answer that a proxy makes, who calls whom by it, and how it is brought about.
type provoked struct {
	kind, from, to string
	call           func(net.Dialer)
}

// TestEveryAnswerOfAProxyIsFoundByWhoCalledWhomAndWhen brings about each kind of answer that
// proxies make by themselves in one mesh, and looks for it without an id.
func TestEveryAnswerOfAProxyIsFoundByWhoCalledWhomAndWhen(t *testing.T) {
	const narrow = "      connectionPool: {http: {maxConnections: 1, maxPendingRequests: 1}}\n"
	const endless = "      timeout: {http: {perRequest: {unit: s, value: 0}, idle: {unit: s, value: 0}}}\n"
	const gatewayHost = "127.83.9.1"
	var root root // of the mesh, once there is one
	shows := map[string]*tls.Certificate{}
	showing := func(name string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shows[name], nil }}
	}
	strangers := x509.NewCertPool() // nobody's authority is in it
	picky := showing("picky")
	picky.ClientAuth, picky.ClientCAs = tls.RequireAndVerifyClientCert, strangers
	old := showing("old")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	ports := map[string]int{
		"other": at(t, withTLS(showing("other"))), "expired": at(t, withTLS(showing("expired"))), "stranger": at(t, withTLS(showing("stranger"))),
		"picky": at(t, withTLS(picky)), "old": at(t, withTLS(old)), "plain": at(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }),
		"closing": at(t, readAndClosed), "refusing": at(t, refusing), "nobody": nobodyAt(t, false), "full": nobodyAt(t, true),
		"held":       at(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
		"tcp-nobody": nobodyAt(t, false), "tcp-full": nobodyAt(t, true), "tcp-stranger": at(t, withTLS(showing("stranger"))),
	}
	byTLS := []string{"other", "expired", "stranger", "picky", "old", "plain", "tcp-stranger"}
	var manifests []string
	for name, port := range ports {
		protocol := "http"
		if name == "refusing" {
			protocol = "http2"
		} else if name == "held" || strings.HasPrefix(name, "tcp-") {
			protocol = "tcp"
		}
		manifests = append(manifests, outside(name, port, protocol))
	}
	w := meshtest.Start(t, meshtest.Options{
		Nodes:    []string{"web", "back", "strict", "down", "narrow", "store", "sealed", "misnamed", "tight", "spare"},
		Apps:     map[string]meshtest.App{"back": awkward(), "narrow": awkward(), "strict": awkward(), "down": &mute{}, "misnamed": overTLS{showing("other")}, "spare": awkward()},
		Policy:   map[string]string{"none": ""},
		Lifetime: 40 * time.Second, // of which a stream lives half
		Manifests: meshtest.Join(append(manifests, meshtest.Mesh(),
			meshtest.VirtualNode("web", "", "back", "strict", "down", "narrow", "gone", "sealed", "misnamed", "tight", "store", "closing", "refusing", "nobody", "full", "held", "tcp-nobody", "tcp-full")+byMTLS(byTLS...),
			meshtest.VirtualNode("back", ""), meshtest.VirtualNode("strict", endless+meshtest.Strict("test.example", "strict")), meshtest.VirtualNode("down", ""),
			meshtest.VirtualNode("gone", ""), meshtest.VirtualNode("narrow", narrow), listening("store", storePort, "tcp", ""),
			routed+routesTo("/reset", "/garbage", "/cut", "/admin", "/ok", "/headers", "/conflict", "/undecided", "/socket"), meshtest.ServiceOfRouter("back", "back"),
			meshtest.ServiceOfNode("strict", "strict"), meshtest.ServiceOfNode("down", "down"), meshtest.ServiceOfNode("narrow", "narrow"),
			meshtest.ServiceOfNode("gone", "gone"), meshtest.ServiceOfNode("store", "store"), edge("/buy"),
			edgeRoute("gone", "/gone", "gone"), edgeRoute("nobody", "/nobody", "nobody"), edgeRoute("back", "/back", "back"), edgeRoute("stranger", "/stranger", "stranger"),
			meshtest.VirtualNode("tight", ""), meshtest.ServiceOfNode("tight", "tight"), behindTLS("sealed"), behindTLS("misnamed"), meshtest.VirtualNode("spare", endless),
			meshtest.ServiceOfNode("shop", "strict"),
			"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: back}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [127.200.0.0/24]}]}]}\n",
			"apiVersion: signet.example/v1alpha1\nkind: ALBIssuer\nmetadata: {name: front}\nspec: {issuer: \""+alb.Issuer+"\", clients: ["+alb.Client+"], signers: [\""+alb.ARN+"\"], ingress: [alb], keysURL: \""+alb.NewRegion(t).URL+"\"}\n",
			newIDP(t, "k1").manifest(t))...),
		Envoy:      shortOfMemory(t, "test/virtualNode/tight"),
		AgentExtra: "- {name: edge, mesh: test, virtual_gateway: edge, bind: " + gatewayHost + ", concurrency: 1}\n",
	})
	awaitEdge(w)
	root = rootOf(t, w)
	shows["other"], shows["expired"], shows["stranger"] = root.sign(t, nil, "test/back"), root.sign(t, expired, "test/expired"), forged(t, "spiffe://test.example/test/stranger")
	shows["picky"], shows["old"] = root.sign(t, nil, "test/picky"), root.sign(t, nil, "test/old")

	back := "http://" + meshtest.HostOf("back")
	get := func(url string, headers ...string) func(net.Dialer) {
		return func(net.Dialer) {
			a, err := meshtest.Do(t, w.Client("web"), http.MethodGet, url, headers...)
			t.Logf("%s: %d %v %q", url, a.Status, err, a.DecisionID)
		}
	}
	outward := func(name string) func(net.Dialer) {
		return get(fmt.Sprintf("http://%s:%d/", meshtest.HostOf(name), ports[name]))
	}
	inbound := func(node string) string { return net.JoinHostPort(w.Nodes[node].Bind, strconv.Itoa(meshtest.AppPort)) }
	said := func(address, text string) func(net.Dialer) {
		return func(d net.Dialer) { t.Logf("%.40q: %s", text, saidTo(d, address, text)) }
	}
	raw := func(text string) func(net.Dialer) { return said(w.Nodes["web"].EgressAddress(), text) }
	direct := func(node, text string) func(net.Dialer) { return said(inbound(node), text) }
	mtls := func(address string, cert *tls.Certificate, path string) func(net.Dialer) {
		return func(d net.Dialer) { t.Log("by mTLS: ", calledBy(d, address, cert, path)) }
	}
	http2 := func(address string, headers ...string) func(net.Dialer) {
		headers = append([]string{":method", "GET", ":scheme", "http", ":path", "/ok", ":authority", "back"}, headers...)
		return func(d net.Dialer) { t.Log("HTTP/2: ", overHTTP2(d, address, headers)) }
	}
	wayOut := func(name string) func(net.Dialer) {
		return func(d net.Dialer) { said(wayToPort(t, w, meshtest.HostOf(name), ports[name]), "hello")(d) }
	}
	const strict, end = "test/strict", "Connection: close\r\n\r\n"
	host := "Host: " + meshtest.HostOf("back") + "\r\n"
	store := net.JoinHostPort(w.Nodes["store"].Bind, strconv.Itoa(storePort))
	gateway := net.JoinHostPort(gatewayHost, strconv.Itoa(meshtest.AppPort))
	large := strings.Repeat("a", 70<<10)

	w.AwaitRoute("web", back+"/ok") // which 403 is
	expect(t, w, provoked{kind: "no-policy", from: "test/web", to: "test/back"}, time.Minute)
	w.Apply(fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: policy}\nspec: {url: \"file://%s\", branch: main, poll: 60s}\n", w.CommitPolicy(map[string]string{"p.rego": answersPolicy})))
	w.SyncPolicy()
	for _, url := range []string{back + "/ok", "http://" + meshtest.HostOf("strict") + "/", "http://" + meshtest.HostOf("narrow") + "/"} {
		w.Await(url, 15*time.Second, func() error {
			a, err := meshtest.Do(t, w.Client("web"), http.MethodGet, url)
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return err
		})
	}

	// All at once: some wait for a time to be over. Of callers without an identity the first of
	// each minute, callee and kind is found.
	kinds := []provoked{
		{"ambiguous", "test/web", meshtest.HostOf("back"), raw("GET /a%2fb HTTP/1.1\r\n" + host + end)},
		{"ambiguous", "127.77.1.1", "test/back", direct("back", "GET /ok HTTP/1.1\r\n"+host+"x_a: 1\r\n"+end)},
		{"ambiguous", "127.77.1.2", "test/narrow", direct("narrow", "POST /ok HTTP/1.1\r\n"+host+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"+end+"0\r\n\r\n")},
		{"ambiguous", "127.77.1.3", "test/down", http2(inbound("down"), "x_a", "1")},
		{"tunnel", "test/web", "orders.internal:443", raw("GET https://orders.internal:443/ HTTP/1.1\r\nHost: orders.internal:443\r\n" + end)},
		{"tunnel", "test/web", "orders.internal:443", raw("CONNECT orders.internal:443 HTTP/1.1\r\nHost: orders.internal:443\r\n\r\n")},
		{"malformed", "test/web", "", raw("G(ET /ok HTTP/1.1\r\n" + host + end)},
		{"malformed", "127.77.2.1", "test/back", direct("back", "GET /ok HTTP/1.1\r\n"+end)},
		{"malformed", "127.77.2.2", "test/narrow", direct("narrow", "OPTIONS * HTTP/1.1\r\n"+host+end)},
		{"malformed", "127.77.2.3", "test/down", http2(inbound("down"), "connection", "close")},
		{"malformed", "127.77.2.5", "test/spare", direct("spare", "POST /ok HTTP/1.1\r\n"+host+"Transfer-Encoding: gzip\r\n"+end)},
		{"malformed", "127.77.2.4", "test/edge", http2(gateway, "x-a", strings.Repeat("!", 70<<10))},
		{"old-http", "test/web", "", raw("GET /ok HTTP/1.0\r\n\r\n")},
		{"large-headers", "test/web", "", raw("GET /ok HTTP/1.1\r\n" + host + "x-a: " + large + "\r\n" + end)},
		{"large-headers", "127.77.3.1", "test/back", direct("back", "GET /ok HTTP/1.1\r\n"+host+strings.Repeat("x-a: 1\r\n", 101)+end)},
		{"large-headers", "127.77.3.2", "test/narrow", direct("narrow", "GET /"+large+" HTTP/1.1\r\n"+host+end)},
		{"large-headers", "127.77.3.3", "test/down", http2(inbound("down"), many(101)...)},
		{"large-headers", "127.77.3.4", "test/edge", http2(gateway, "x-a", large)},
		{"slow-headers", "test/web", "", raw("GET /ok HTTP/1.1\r\nHo")},
		{"upgrade", "test/web", "test/back", raw("GET /socket HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: tunnel\r\n\r\n")},
		{"undeclared", "test/web", "other.internal", get("http://other.internal/")},
		{"no-route", "test/web", meshtest.HostOf("back"), get(back + "/nowhere")},
		{"no-gateway-route", "127.77.4.1", "test/edge", said(gateway, "GET /nowhere HTTP/1.1\r\n"+host+end)},

		{"denied", "test/web", "test/back", get(back + "/admin")},
		{"denied", "127.77.4.2", "test/back", direct("back", "GET /admin HTTP/1.1\r\n"+host+end)},
		{"policy-error", "test/web", "test/back", get(back + "/conflict")},
		{"invalid-decision", "test/web", "test/back", get(back + "/headers")},
		{"token-refused", "test/web", "test/back", get(back+"/ok", "Authorization", "Bearer a.b.c")},
		{"token-key", "ingress/alb", "test/back", func(net.Dialer) {
			direct("back", "GET /ok HTTP/1.1\r\n"+host+"X-Amzn-Oidc-Data: "+alb.NewKey(t).Token(t, "ana")+"\r\n"+end)(dialer("127.200.0.7"))
		}},
		{"caller-certificate", "127.77.4.3", strict, mtls(inbound("strict"), root.sign(t, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "test/web"), "/")},

		{"caller-without-certificate", "127.77.5.1", strict, mtls(inbound("strict"), &tls.Certificate{}, "/")},
		{"caller-unknown-authority", "127.77.5.2", strict, mtls(inbound("strict"), forged(t, "spiffe://test.example/test/web"), "/")},
		{"caller-expired", "127.77.5.3", strict, mtls(inbound("strict"), root.sign(t, expired, "test/web"), "/")},
		{"caller-name", "127.77.5.4", "test/store", mtls(store, root.sign(t, nil, "test/back"), "/")},
		{"not-an-svid", "127.77.5.5", strict, mtls(inbound("strict"), root.sign(t, nil, "test/web", "test/back"), "/")},
		{"tls-mismatch", "127.77.5.6", strict, func(d net.Dialer) {
			_, err := tls.DialWithDialer(&d, "tcp", inbound("strict"), &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}) //nolint:gosec // what is tested
			t.Log(err)
		}},
		{"refused-by-caller", "127.77.5.7", strict, func(d net.Dialer) {
			_, err := tls.DialWithDialer(&d, "tcp", inbound("strict"), &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "shop.example", RootCAs: strangers}) // who trusts nobody
			t.Log(err)
		}},
		{"plaintext-refused", "127.77.5.8", strict, said(inbound("strict"), "GET / HTTP/1.1\r\n"+host+end)},
		{"slow-handshake", "127.77.5.9", strict, func(d net.Dialer) { deafAfterHello(d, inbound("strict")) }},

		{"callee-name", "test/web", "test/other", outward("other")},
		{"callee-expired", "test/web", "test/expired", outward("expired")},
		{"callee-unknown-authority", "test/web", "test/stranger", outward("stranger")},
		{"callee-unknown-authority", "test/web", "test/tcp-stranger", wayOut("tcp-stranger")},
		{"callee-without-tls", "test/web", "test/plain", outward("plain")},
		{"callee-tls", "test/web", "test/old", outward("old")},
		{"callee-reset", "test/web", "test/picky", outward("picky")},
		{"callee-reset", "test/web", "test/closing", outward("closing")},

		{"no-endpoint", "test/web", "test/gone", get("http://" + meshtest.HostOf("gone") + "/")},
		{"application-down", "test/web", "test/down", get("http://" + meshtest.HostOf("down") + "/")},
		{"application-down", "test/web", "test/store", func(d net.Dialer) { said(wayTo(t, w, "web"), "hello")(d) }},
		{"application-down", "127.77.6.1", "test/store", said(store, "hello")},
		{"unreachable", "test/web", "test/nobody", outward("nobody")},
		{"unreachable", "test/web", "test/tcp-nobody", wayOut("tcp-nobody")},
		{"connect-timeout", "test/web", "test/full", outward("full")},
		{"connect-timeout", "test/web", "test/tcp-full", wayOut("tcp-full")},
		{"refused-stream", "test/web", "test/refusing", outward("refusing")},
		{"application-reset", "test/web", "test/back", get(back + "/reset")},
		{"not-http", "test/web", "test/back", get(back + "/garbage")},
		{"cut-off", "test/web", "test/back", get(back + "/cut")},
		{"timeout", "test/web", "test/back", get(back + "/slow")},
		{"idle-timeout", "test/web", "test/back", get(back + "/idle")},
		{"idle-timeout", "test/web", "test/back", raw("POST /idle HTTP/1.1\r\n" + host + "Content-Length: 5\r\n" + end)},
		{"try-timeout", "test/web", "test/back", get(back + "/slow-try")},
		{"pool-full", "test/web", "test/narrow", func(d net.Dialer) {
			var calls sync.WaitGroup
			for range 6 {
				calls.Go(func() { get("http://" + meshtest.HostOf("narrow") + "/slow")(d) })
			}
			calls.Wait()
		}},
		{"too-long", "test/web", strict, mtls(inbound("strict"), root.sign(t, nil, "test/web"), "/long")},
		{"too-long", "test/web", "test/held", wayOut("held")},
		{"large-body", "test/web", "test/nobody", func(d net.Dialer) {
			t.Log("a large body: ", moreThanKept(d, w.Nodes["web"].EgressAddress(), fmt.Sprintf("%s:%d", meshtest.HostOf("nobody"), ports["nobody"])))
		}},
		{"overloaded", "test/web", "test/tight", get("http://" + meshtest.HostOf("tight") + "/")},
		{"application-tls", "test/web", "test/sealed", get("http://" + meshtest.HostOf("sealed") + "/")},
		{"application-tls", "test/web", "test/misnamed", get("http://" + meshtest.HostOf("misnamed") + "/")},

		// A gateway calls as the proxy of a caller does: it is the caller, and is found by its own caller's address as well.
		{"no-endpoint", "test/edge", "test/gone", said(gateway, "GET /gone HTTP/1.1\r\n"+host+end)},
		{"unreachable", "test/edge", "test/nobody", said(gateway, "GET /nobody HTTP/1.1\r\n"+host+end)},
		{"callee-reset", "test/edge", "test/stranger", said(gateway, "GET /stranger HTTP/1.1\r\n"+host+end)},
		{"timeout", "127.77.7.1", "test/back", said(gateway, "GET /back/slow HTTP/1.1\r\n"+host+end)},
		{"drained", "127.77.7.2", "test/spare", func(d net.Dialer) {
			var long sync.WaitGroup
			long.Go(func() { direct("spare", "GET /long HTTP/1.1\r\n"+host+"\r\n")(d) })
			time.Sleep(500 * time.Millisecond)
			w.Apply("apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: spare}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [127.200.0.0/24]}]}]}\n")
			long.Wait()
		}},
	}
	// These end something: whom a ban is of, and the process that decides.
	banned := w.JoinHost().ID
	last := []provoked{
		{"banned", "signet/agent/" + banned, strict, func(d net.Dialer) {
			if out, code := w.CLI("ban", banned); code != 0 {
				t.Errorf("exit %d: %s", code, out)
			}
			mtls(inbound("strict"), root.sign(t, nil, "signet/agent/"+banned), "/")(d)
		}},
		{"undecided", "test/web", "test/back", func(d net.Dialer) {
			authz := authzPID(t, w)
			if err := syscall.Kill(authz, syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			get(back + "/undecided")(d)
			_ = syscall.Kill(authz, syscall.SIGCONT) // it may have been replaced
		}},
	}
	text, err := os.ReadFile(filepath.Join(parts.Root(), "docs", "ANSWERS.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, made := string(text), map[string]bool{"no-policy": true}
	for _, k := range append(kinds, last...) {
		made[k.kind] = true
	}
	for _, k := range answers.All() {
		if made[k.Name] == (notMade[k.Name] != "") {
			t.Errorf("%s is either brought about here or says why not", k.Name)
		}
		if row := fmt.Sprintf("\n| `%s` | %s |\n", k.Name, notMade[k.Name]); strings.Contains(page, row) == made[k.Name] {
			t.Errorf("docs/ANSWERS.md has this row of a kind that no test here makes, or does not have it: %s", row)
		}
	}
	began := time.Now()
	var calls sync.WaitGroup
	for _, k := range kinds {
		calls.Go(func() { k.call(dialer(k.from)) })
	}
	calls.Wait()
	for _, k := range kinds {
		expect(t, w, k, time.Since(began))
	}
	for _, k := range last {
		k.call(dialer(k.from))
		expect(t, w, k, time.Minute)
	}
}

// expect looks for an answer of a time, without an id, and then by its id.
func expect(t *testing.T, w *meshtest.World, k provoked, since time.Duration) {
	t.Helper()
	var found foundAnswer
	for end := time.Now().Add(5 * time.Second); found.Kind == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found = answerOf(t, w, k.kind, "--since", fmt.Sprint(since+5*time.Second), "--from", k.from, "--to", k.to)
	}
	if found.Kind == "" {
		out, _ := w.CLI("explain", "--since", fmt.Sprint(since), "--from", k.from, "--to", k.to)
		t.Errorf("%s from %s to %s is not found; there is\n%s", k.kind, k.from, k.to, out)
		return
	}
	of, _ := answers.Named(k.kind)
	name := func(of string) string {
		if strings.Contains(of, "/") { // an address has none
			return of
		}
		return ""
	}
	if cure := of.CureFor(answers.Names{From: name(k.from), To: name(k.to), Host: found.Host}); found.Count == 0 || found.Cure != cure {
		t.Errorf("%+v, want to be told %q", found, cure)
	}
	// Of what authz decided the reason is its own.
	if !strings.HasPrefix(found.Message, of.Cause) && found.Cause == "" {
		t.Errorf("%+v, whose cause is %q", found, of.Cause)
	}
	// There is no status where a connection is closed, or a stream of HTTP/2 is reset.
	if closed := of.Gets == "connection closed" || of.Name == "cut-off"; closed != (found.Status == 0 || of.Name == "cut-off") && found.Method != "tcp" && found.Method != "" ||
		found.Status != 0 && !closed && !strings.Contains(of.Gets, strconv.Itoa(found.Status)) {
		t.Errorf("%+v, and the caller gets %q by the table", found, of.Gets)
	}
	if answer, err := w.Admin.Explain(t.Context(), &api.ExplainRequest{Id: found.ID}); err != nil || answer.GetDecision().GetKind() != k.kind || answer.GetDecision().GetCure() != found.Cure {
		t.Errorf("%s by its id: %v, %v", k.kind, answer, err)
	}
}

// notMade are the kinds that this test does not bring about: why nothing does, or the test that does.
// docs/ANSWERS.md has the list, too.
var notMade = map[string]string{
	"not-let-out":         "`TestWhatIsRedirectedGoesOutAsItsApplicationsAndComesInAsItsCallers`, in a network namespace",
	"undeclared-port":     "`TestWhatIsRedirectedGoesOutAsItsApplicationsAndComesInAsItsCallers`, in a network namespace",
	"no-target":           "nothing: `apply` refuses weights of 0 in all and targets without a listener; `TestInvariantsHoldForRandomMeshes` finds no such route in any mesh",
	"not-the-application": "`TestOnlyTheApplicationCallsOutWithTheProxysIdentity`, by another user of the host",
	"other":               "nothing on purpose: what Envoy can say has a kind, or nothing has it say so (`TestWhatEnvoySaysOfAnAnswerHasAKindUnlessNothingMakesItSaySo`)",
}

type foundAnswer struct {
	ID, Kind, Cause, Cure, Message, Method, Host string
	Count                                        int `json:",string"`
	Status                                       int
}

// answerOf is what explain has of a kind.
func answerOf(t *testing.T, w *meshtest.World, kind string, args ...string) foundAnswer {
	t.Helper()
	out, stderr, code := w.CLISplit(append([]string{"explain", "-o", "json"}, args...)...)
	var answer struct{ Decisions []foundAnswer }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 {
		t.Fatalf("explain %v: exit %d, %v\n%s%s", args, code, err, out, stderr)
	}
	for _, d := range answer.Decisions {
		if d.Kind == kind {
			return d
		}
	}
	return foundAnswer{}
}

// mute is an application that does not listen.
type mute struct{}

func (*mute) ServeHTTP(http.ResponseWriter, *http.Request) {}
func (*mute) ServeListener(l net.Listener)                 { _ = l.Close() }
