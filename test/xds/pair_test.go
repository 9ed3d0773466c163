package xdstest_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// pair is a caller, the node it calls, and one that only pretends.
const pair = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
      healthCheck: {protocol: http, path: /ping, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: pretender}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {awsName: orders.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: orders}}}}
`

func TestAProxyCallsWhomItMeansByMTLS(t *testing.T) {
	stub, app, pki := startStub(t), startApplication(t), newPKI(t)
	text := strings.ReplaceAll(pair, "PORT", strconv.FormatUint(uint64(app.port), 10))
	node := func(name string, endpoints ...xds.Endpoint) xdstest.Case {
		bind := loopback()
		return xdstest.Case{
			Name: name, Mesh: "shop", Node: name,
			Input: xds.Input{
				Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain,
				Endpoints: func(proxy.Ref, uint32) []xds.Endpoint { return endpoints },
			},
			Shape: proxy.Shape{Bind: bind, App: app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket},
		}
	}
	orders, pretender := node("orders"), node("pretender")
	callee := startProxy(t, orders, pki)
	startProxy(t, pretender, pki)

	var caller *running
	call := func(to xdstest.Case) int {
		front := node("front", xds.Endpoint{Address: to.Shape.Bind, Port: app.port, Healthy: true})
		caller = startProxy(t, front, pki)
		return corpus.Status(raw(t, front.Shape.Egress.String(),
			"GET http://orders.shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	}
	if code := call(orders); code != 200 {
		t.Fatalf("the node itself: %d", code)
	}
	ownChecks := 0 // of the application by its own proxy, which has no identity for it
	passed := func() []*http.Request {
		return slices.DeleteFunc(app.take(), func(r *http.Request) bool {
			own := r.RequestURI == "/ping" && r.UserAgent() == "Envoy/HC" && r.Header.Get("X-Forwarded-Client-Cert") == ""
			if own {
				ownChecks++
			}
			return own
		})
	}
	probed := false
	for _, r := range passed() {
		probed = probed || r.RequestURI == "/ping"
		if xfcc := r.Header.Get("X-Forwarded-Client-Cert"); !strings.Contains(xfcc, "URI=spiffe://test.example/shop/front") {
			t.Errorf("%s came from %q", r.RequestURI, xfcc)
		}
	}
	if !probed || ownChecks == 0 {
		t.Errorf("a health check by the client arrived: %t; %d by the proxy itself", probed, ownChecks)
	}
	// Between two Envoys of ours there is no other key exchange.
	for side, got := range map[string]map[string]int64{"called": caller.curves("cluster"), "caller": callee.curves("listener")} {
		if got["X25519MLKEM768"] == 0 || len(got) != 1 {
			t.Errorf("%s: Envoy counted %v", side, got)
		}
	}
	// It has a certificate of the trust domain, and it is not orders.
	if code := call(pretender); code != 503 {
		t.Errorf("a node with another SPIFFE ID: %d", code)
	}
	if n := len(passed()); n > 0 {
		t.Errorf("%d requests passed to the wrong node", n)
	}
}
