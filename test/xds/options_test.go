package xdstest_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func optionsOf(node, listener string) string {
	return "---\napiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: " + node + "}\nspec: {listeners: [{port: PORT, " + listener + "}]}\n"
}

func TestAProxyKnowsItsApplicationByTLS(t *testing.T) {
	stub, pki := startStub(t), newPKI(t)
	var mu sync.Mutex
	var shown *tls.Certificate
	var asked []string
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			by := ""
			for _, c := range r.TLS.PeerCertificates {
				by += c.URIs[0].String()
			}
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.TLS.ServerName+" "+by)
		}),
		TLSConfig: &tls.Config{
			ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				mu.Lock()
				defer mu.Unlock()
				return shown, nil
			},
		},
	}
	srv.SetKeepAlivesEnabled(false) // each call shows itself anew
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }() // ends by Close
	t.Cleanup(func() { _ = srv.Close(); <-done })
	app := l.Addr().(*net.TCPAddr)

	const node = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: orders}\nspec: {listeners: [{portMapping: {port: PORT, protocol: http}}]}\n"
	bind := loopback()
	with := func(options string) xdstest.Case {
		text := strings.ReplaceAll(node+optionsOf("orders", options), "PORT", strconv.Itoa(app.Port))
		return xdstest.Case{
			Name: "orders", Mesh: "shop", Node: "orders",
			Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain},
			Shape: proxy.Shape{Bind: bind, App: app.IP.String(), Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
		}
	}
	var p *running
	for _, c := range []struct {
		options string
		shows   *tls.Certificate
		code    int
		asked   string
	}{
		{
			`applicationTLS: {trust: {file: {certificateChain: /keys/ca.pem}}, subjectAlternativeNames: {match: {exact: [app.orders]}}, sni: app.orders, presentSVID: true}`,
			pki.files(t).named(t, nil, "app.orders"), 200, "app.orders spiffe://test.example/shop/orders",
		},
		{
			`applicationTLS: {trust: {file: {certificateChain: /keys/ca.pem}}, subjectAlternativeNames: {match: {exact: [app.orders]}}}`,
			pki.files(t).named(t, nil, "app.orders"), 200, " ",
		},
		{
			`applicationTLS: {trust: {file: {certificateChain: /keys/ca.pem}}, subjectAlternativeNames: {match: {exact: [app.orders]}}}`,
			pki.files(t).named(t, nil, "another.app"), 503, "",
		},
		{
			`applicationTLS: {trust: {file: {certificateChain: /keys/ca.pem}}, subjectAlternativeNames: {match: {exact: [app.orders]}}}`,
			newPKI(t).named(t, nil, "app.orders"), 503, "",
		},
		{
			`applicationTLS: {trust: {sds: {secretName: "spiffe://test.example"}}, subjectAlternativeNames: {match: {exact: ["spiffe://test.example/shop/orders-app"]}}}`,
			pki.svid(t, "spiffe://test.example/shop/orders-app"), 200, " ",
		},
		{
			`applicationTLS: {trust: {sds: {secretName: "spiffe://test.example"}}, subjectAlternativeNames: {match: {exact: ["spiffe://test.example/shop/orders-app"]}}}`,
			pki.svid(t, "spiffe://test.example/shop/pay-app"), 503, "",
		},
	} {
		mu.Lock()
		shown, asked = c.shows, nil
		mu.Unlock()
		if p == nil {
			p = startProxy(t, with(c.options), pki)
		} else {
			p.publish(with(c.options), pki)
			p.settle()
		}
		code := corpus.Status(raw(t, net.JoinHostPort(bind, strconv.Itoa(app.Port)), "GET /q HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"))
		mu.Lock()
		got := strings.Join(asked, ",")
		mu.Unlock()
		if code != c.code || got != c.asked {
			t.Errorf("%s: %d, asked %q; want %d, %q", c.options, code, got, c.code, c.asked)
		}
	}
}

func TestOptionsOfANodeBoundWhatItsCallersHaveUnderWay(t *testing.T) {
	const service = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: shop}
spec: {awsName: shop.internal, provider: {virtualRouter: {virtualRouterRef: {name: shop}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: shop}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  routes:
    - name: all
      httpRoute:
        match: {prefix: /}
        action: {weightedTargets: [{virtualNodeRef: {name: shop}, weight: 1}]}
        retryPolicy: {httpRetryEvents: [server-error], maxRetries: 3, perRetryTimeout: {unit: s, value: 60}}
        timeout: {perRequest: {unit: s, value: 60}}
`
	var mu sync.Mutex
	var hold chan struct{}
	held, seen := 0, map[string]bool{}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		wait, first := hold, !seen[r.URL.Path]
		seen[r.URL.Path] = true
		if first && strings.HasPrefix(r.URL.Path, "/again") {
			mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		held++
		mu.Unlock()
		<-wait
	})
	c := startCaller(t, service, []string{"shop"}, callee{"shop", plain("http"), serve}, callee{"shop", plain("http"), serve})
	// ask sends so many calls at once, and returns how many were held while others were
	// answered, and how many were refused.
	ask := func(options, path string, n int, enough func(held, refused int) bool) (atOnce, refused int) {
		t.Helper()
		mu.Lock()
		hold, held, seen = make(chan struct{}), 0, map[string]bool{}
		mu.Unlock()
		c.proxy.publish(c.with(t, service+optionsOf("shop", options)), newPKI(t))
		c.proxy.settle()
		var wg sync.WaitGroup
		over := 0
		for i := range n {
			wg.Go(func() {
				r := raw(t, c.out, fmt.Sprintf("GET http://shop.internal%s/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path, i))
				mu.Lock()
				defer mu.Unlock()
				if corpus.Status(r) == http.StatusServiceUnavailable {
					over++
				}
			})
		}
		eventually(t, options, func() bool { mu.Lock(); defer mu.Unlock(); return enough(held, over) })
		time.Sleep(200 * time.Millisecond) // for what would come beyond
		mu.Lock()
		atOnce, refused = held, over
		close(hold)
		mu.Unlock()
		wg.Wait()
		return atOnce, refused
	}
	// Two workers, each of which Envoy lets have one connection whatever the bound.
	for _, of := range []struct {
		what, options, path string
		held, refused       [2]int // least and most, of 12
	}{
		{"no bound of these", "circuitBreaker: {maxRequests: 1000}", "/q", [2]int{12, 12}, [2]int{0, 0}},
		{"connections and requests that wait", "circuitBreaker: {maxConnections: 1, maxPendingRequests: 2}", "/q", [2]int{1, 3}, [2]int{7, 11}},
		{"connections of each endpoint", "circuitBreaker: {maxConnectionsPerHost: 1}", "/q", [2]int{2, 5}, [2]int{0, 0}},
		{"retries", "circuitBreaker: {maxRetries: 2}", "/again", [2]int{2, 4}, [2]int{8, 10}},
		{"a budget of retries", "circuitBreaker: {retryBudget: {percent: 1, minRetries: 3}}", "/again", [2]int{3, 5}, [2]int{7, 9}},
	} {
		in := func(n int, of [2]int) bool { return n >= of[0] && n <= of[1] }
		held, refused := ask(of.options, of.path, 12, func(held, refused int) bool { return in(held, of.held) && in(refused, of.refused) })
		if !in(held, of.held) || !in(refused, of.refused) {
			t.Errorf("%s: %d at once, %d refused", of.what, held, refused)
		}
	}
}
