package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/proxy/answers"
	"signet.example/test/meshtest"
)

// awkward is an application that does what the path says: of each way in which one fails.
func awkward() meshtest.App {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the request as a whole
		switch r.URL.Path {
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

const answersPolicy = `package signet.authz

allow contains "all but one" if input.request.path != "/admin"

allow contains "all connections" if input.connection

role := "one" if input.request.path == "/conflict"

role := "another" if input.request.path == "/conflict"

allow contains "a role" if role == "one"
`

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

// TestEveryAnswerOfAProxyIsFoundByWhoCalledWhomAndWhen brings about each kind of answer that
// proxies make by themselves in one mesh, and looks for it without an id.
func TestEveryAnswerOfAProxyIsFoundByWhoCalledWhomAndWhen(t *testing.T) {
	narrow := "      connectionPool: {http: {maxConnections: 1, maxPendingRequests: 1}}\n"
	w := meshtest.Start(t, meshtest.Options{
		Nodes:  []string{"web", "back", "strict", "down", "narrow", "store"},
		Apps:   map[string]meshtest.App{"back": awkward(), "narrow": awkward(), "down": &mute{}},
		Policy: map[string]string{"p.rego": answersPolicy},
		Manifests: meshtest.Join(meshtest.Mesh(),
			meshtest.VirtualNode("web", "", "back", "strict", "down", "narrow", "gone", "store"),
			meshtest.VirtualNode("back", ""), meshtest.VirtualNode("strict", meshtest.Strict("test.example", "strict")), meshtest.VirtualNode("down", ""),
			meshtest.VirtualNode("gone", ""), meshtest.VirtualNode("narrow", narrow), listening("store", storePort, "tcp", ""),
			routed+routesTo("/reset", "/garbage", "/cut", "/admin", "/ok", "/conflict", "/undecided", "/socket"), meshtest.ServiceOfRouter("back", "back"),
			meshtest.ServiceOfNode("strict", "strict"), meshtest.ServiceOfNode("down", "down"), meshtest.ServiceOfNode("narrow", "narrow"),
			meshtest.ServiceOfNode("gone", "gone"), meshtest.ServiceOfNode("store", "store"), newIDP(t, "k1").manifest(t)),
	})
	back := "http://" + meshtest.HostOf("back")
	w.AwaitRoute("web", back+"/ok")
	w.AwaitRoute("web", "http://"+meshtest.HostOf("strict")+"/")
	w.AwaitRoute("web", "http://"+meshtest.HostOf("narrow")+"/")

	get := func(url string, headers ...string) func() {
		return func() {
			a, err := meshtest.Do(t, w.Client("web"), http.MethodGet, url, headers...)
			t.Logf("%s: %d %v %q", url, a.Status, err, a.DecisionID)
		}
	}
	write := func(network, address, text string) {
		c, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			t.Log(err)
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a hang is found below
		_, _ = io.WriteString(c, text)
		_, _ = io.ReadAll(io.LimitReader(c, 1<<20))
	}
	out := w.Nodes["web"].EgressAddress()
	raw := func(text string) func() { return func() { write("tcp", out, text) } }
	inbound := func(node string) string { return net.JoinHostPort(w.Nodes[node].Bind, strconv.Itoa(meshtest.AppPort)) }
	host := "Host: " + meshtest.HostOf("back") + "\r\n"
	const end = "Connection: close\r\n\r\n"

	kinds := []struct {
		kind, from, to string
		call           func()
	}{
		{"ambiguous", "test/web", meshtest.HostOf("back"), raw("GET /a%2fb HTTP/1.1\r\n" + host + end)},
		{"tunnel", "test/web", "orders.internal:443", raw("CONNECT orders.internal:443 HTTP/1.1\r\nHost: orders.internal:443\r\n\r\n")},
		{"malformed", "test/web", "", raw("G(ET /ok HTTP/1.1\r\n" + host + end)},
		{"old-http", "test/web", "", raw("GET /ok HTTP/1.0\r\n\r\n")},
		{"large-headers", "test/web", "", raw("GET /ok HTTP/1.1\r\n" + host + "x-a: " + strings.Repeat("a", 70<<10) + "\r\n" + end)},
		{"upgrade", "test/web", "test/back", raw("GET /socket HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: tunnel\r\n\r\n")},
		{"undeclared", "test/web", "other.internal", get("http://other.internal/")},
		{"no-route", "test/web", meshtest.HostOf("back"), get(back + "/nowhere")},
		{"denied", "test/web", "test/back", get(back + "/admin")},
		{"policy-error", "test/web", "test/back", get(back + "/conflict")},
		{"token-refused", "test/web", "test/back", get(back+"/ok", "Authorization", "Bearer a.b.c")},
		{"no-endpoint", "test/web", "test/gone", get("http://" + meshtest.HostOf("gone") + "/")},
		{"application-down", "test/web", "test/down", get("http://" + meshtest.HostOf("down") + "/")},
		{"application-reset", "test/web", "test/back", get(back + "/reset")},
		{"not-http", "test/web", "test/back", get(back + "/garbage")},
		{"cut-off", "test/web", "test/back", get(back + "/cut")},
		{"timeout", "test/web", "test/back", get(back + "/slow")},
		{"idle-timeout", "test/web", "test/back", get(back + "/idle")},
		{"try-timeout", "test/web", "test/back", get(back + "/slow-try")},
		{"pool-full", "test/web", "test/narrow", func() {
			done := make(chan struct{})
			for range 6 {
				go func() {
					defer func() { done <- struct{}{} }()
					get("http://" + meshtest.HostOf("narrow") + "/slow")()
				}()
			}
			for range 6 {
				<-done
			}
		}},
		{"caller-without-certificate", "127.0.0.1", "test/strict", func() { _, _, _ = dialTLS(inbound("strict"), nil, nil) }},
		{"caller-unknown-authority", "127.0.0.1", "test/strict", func() {
			cert := forged(t, "spiffe://test.example/test/web")
			c, err := tls.Dial("tcp", inbound("strict"), &tls.Config{
				MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the server is what is tested
				// Also where the server asks for certificates of others.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
			})
			if err == nil {
				_, err = request(c)
				_ = c.Close()
			}
			t.Log(err)
		}},
		{"tls-mismatch", "127.0.0.1", "test/strict", func() {
			_, err := tls.Dial("tcp", inbound("strict"), &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}) //nolint:gosec // what is tested
			t.Log(err)
		}},
		{"refused-by-caller", "127.0.0.1", "test/strict", func() {
			_, err := tls.Dial("tcp", inbound("strict"), &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "shop.example", RootCAs: x509.NewCertPool()}) // who trusts nobody
			t.Log(err)
		}},
		{"plaintext-refused", "127.0.0.1", "test/strict", func() { write("tcp", inbound("strict"), "GET / HTTP/1.1\r\n"+host+end) }},
		{"application-down", "test/web", "test/store", func() { write("tcp", wayTo(t, w, "web"), "hello") }},
		{"undecided", "test/web", "test/back", func() {
			authz := authzPID(t, w)
			if err := syscall.Kill(authz, syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			get(back + "/undecided")()
			_ = syscall.Kill(authz, syscall.SIGCONT) // it may have been replaced
		}},
	}
	made := map[string]bool{}
	for _, k := range kinds {
		made[k.kind] = true
	}
	for _, k := range answers.All() {
		if made[k.Name] == (notMade[k.Name] != "") {
			t.Errorf("%s is either brought about here or says why not", k.Name)
		}
	}
	for _, k := range kinds {
		before := time.Now()
		k.call()
		var found foundAnswer
		for end := time.Now().Add(5 * time.Second); found.Kind == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			found = answerOf(t, w, k.kind, "--since", fmt.Sprint(time.Since(before)+time.Second), "--from", k.from, "--to", k.to)
		}
		if found.Kind == "" {
			out, _ := w.CLI("explain", "--since", fmt.Sprint(time.Since(before)+time.Second))
			t.Errorf("%s from %s to %s is not found; there is\n%s", k.kind, k.from, k.to, out)
			continue
		}
		of, _ := answers.Named(k.kind)
		if found.Count == 0 || !strings.HasPrefix(found.Cure, of.CureFor(answers.Names{From: "test/web", To: k.to})[:10]) {
			t.Errorf("%s: %+v", k.kind, found)
		}
		if text, code := w.CLI("explain", found.ID); code != 0 || !strings.Contains(text, of.Cause) && !strings.Contains(text, "why") || !strings.Contains(text, found.Cure) {
			t.Errorf("%s by its id: exit %d\n%s", k.kind, code, text)
		}
	}
}

// notMade are the kinds that this test does not bring about, by what that takes.
var notMade = map[string]string{ //nolint:gosec // "token" and "certificate" are kinds of answers
	"large-body":               "no listener of ours bounds a body",
	"slow-headers":             "headers that do not end in time",
	"no-gateway-route":         "a gateway, which this mesh has not",
	"no-target":                "a route without a share or a listener, which takes another mesh",
	"token-key":                "a load balancer's key that cannot be fetched",
	"invalid-decision":         "a policy that is refused where it is compiled, in most forms",
	"not-let-out":              "rules that redirect, which take a namespace: TestWhatIsRedirectedGoesOutAsItsApplicationsAndComesInAsItsCallers",
	"undeclared-port":          "as not-let-out",
	"not-the-application":      "another user of the host, so root: TestOnlyTheApplicationCallsOutWithTheProxysIdentity",
	"caller-expired":           "a certificate of the mesh's own root whose hour is over",
	"caller-name":              "a member of the mesh that a listener of tcp does not take",
	"slow-handshake":           "a caller that stops within its handshake, for 10 s; who says nothing at all is closed before, and no line tells of it",
	"not-an-svid":              "a certificate of the mesh's own root that is no SVID, which its signer does not make",
	"callee-name":              "another member of the mesh at the callee's address",
	"callee-expired":           "as caller-expired",
	"callee-unknown-authority": "a stranger at the callee's address",
	"callee-refuses-caller":    "a callee that takes others than its caller",
	"callee-without-tls":       "a callee in plaintext whose caller asks for TLS",
	"callee-tls":               "a callee that speaks no TLS that its caller has",
	"unhealthy-application":    "an application without an address, which an agent's file always gives",
	"connect-timeout":          "an address whose packets are dropped, which takes a namespace",
	"unreachable":              "a callee whose proxy is gone and not yet taken from its callers",
	"refused-stream":           "an application of HTTP/2 that takes no more streams",
	"callee-reset":             "a callee's Envoy that is killed within a request",
	"too-long":                 "a stream as old as half a certificate's life",
	"overloaded":               "an Envoy without memory",
	"banned":                   "a banned host, which ends this mesh",
	"no-policy":                "a mesh without a policy",
	"caller-certificate":       "as not-an-svid",
	"other":                    "no sign fits it: what is made on purpose has one",
}

type foundAnswer struct {
	ID, Kind, Cure, Message string
	Count                   int `json:",string"`
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
