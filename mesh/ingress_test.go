package mesh_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

func TestAnIngressIsOfOneListenerOfANodeOrAGateway(t *testing.T) {
	const text = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: m}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: n}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}, {portMapping: {port: 8081, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: g}
spec: {listeners: [{portMapping: {port: 8088, protocol: http}}]}
---
apiVersion: signet.example/v1alpha1
kind: VirtualNodeOptions
metadata: {name: n}
spec: {listeners: [{port: 8081, ingress: [{name: alb, ranges: [10.0.1.0/24, 10.0.2.7], passes: [host-headers]}]}]}
---
apiVersion: signet.example/v1alpha1
kind: VirtualGatewayOptions
metadata: {name: g}
spec: {authorization: observe, listeners: [{port: 8088, proxyProtocol: true, ingress: [{name: nlb, ranges: ["fd00::/64"], healthCheckPath: /up}]}]}
`
	g := graphtest.Graph(t, "m.yaml", []byte(text))
	node, gateway := g.Node(proxy.Node("m", "n")), g.Node(proxy.Ref{Mesh: "m", Kind: proxy.VirtualGateway, Name: "g"})
	want := []mesh.Ingress{{Name: "alb", Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("10.0.2.7/32")}, Passes: []string{"host-headers"}}}
	if diff := cmp.Diff(want, node.Listeners[1].Ingress, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || len(node.Listeners[0].Ingress) > 0 || node.Observed {
		t.Errorf("node: %s %+v", diff, node.Listeners[0].Ingress)
	}
	want = []mesh.Ingress{{Name: "nlb", Ranges: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}, HealthCheckPath: "/up"}}
	if diff := cmp.Diff(want, gateway.Listeners[0].Ingress, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || !gateway.Observed || !gateway.Listeners[0].ProxyProtocol || node.Listeners[1].ProxyProtocol {
		t.Errorf("gateway: %s, observed %t", diff, gateway.Observed)
	}
}
