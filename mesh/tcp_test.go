package mesh_test

import (
	"slices"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

const stores = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: store}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}, {portMapping: {port: 6379, protocol: tcp}}, {portMapping: {port: 6380, protocol: tcp}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: store}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 6000, protocol: tcp}}]
  routes:
    - {name: h, httpRoute: {match: {prefix: /, port: 80}, action: {weightedTargets: [{virtualNodeRef: {name: store}, port: 8080, weight: 1}]}}}
    - {name: t, tcpRoute: {match: {port: 6000}, timeout: {idle: {unit: s, value: 9}}, action: {weightedTargets: [{virtualNodeRef: {name: store}, port: 6379, weight: 1}]}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: routed}
spec: {provider: {virtualRouter: {virtualRouterRef: {name: store}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: direct}
spec: {provider: {virtualNode: {virtualNodeRef: {name: store}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: BackendGroup
metadata: {name: all}
spec: {virtualservices: [{name: direct}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: by-route}
spec: {backends: [{virtualService: {virtualServiceRef: {name: routed}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: by-node}
spec: {backendGroups: [{name: all}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: stranger}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {listeners: [{portMapping: {port: 1, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: e}
spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: direct}}, port: 8080}}}}
`

func TestOnlyNodesWhoseBackendsLeadToATCPListenerAreItsCallers(t *testing.T) {
	g := graphtest.Graph(t, "g.yaml", []byte(stores))
	names := func(list []*mesh.VirtualNode) []string {
		var out []string
		for _, n := range list {
			out = append(out, n.Name)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	store := g.Node(proxy.Node("shop", "store"))
	for port, want := range map[uint32][]string{6379: {"by-node", "by-route"}, 6380: {"by-node"}} {
		if got := names(g.TCPCallers(store, port)); !slices.Equal(got, want) {
			t.Errorf("port %d is called by %v, want %v", port, got, want)
		}
	}
	// Whoever is changed changes whom they may call.
	for _, from := range []mesh.Name{
		mesh.NodeName(proxy.Node("shop", "by-node")), mesh.NodeName(proxy.Node("shop", "by-route")),
		mesh.NameOf(mesh.KindBackendGroup, "shop", "all"), mesh.NameOf(mesh.KindVirtualRouter, "shop", "store"), mesh.NameOf(mesh.KindVirtualService, "shop", "direct"),
	} {
		if got := names(slices.Collect(g.CalledBy(from))); !slices.Equal(got, []string{"store"}) {
			t.Errorf("%v leads to %v", from, got)
		}
	}
	if got := names(slices.Collect(g.CalledBy(mesh.NodeName(store.Ref)))); len(got) > 0 {
		t.Errorf("store leads to %v", got)
	}
	if !store.HasTCP() || g.Node(proxy.Node("shop", "stranger")).HasTCP() {
		t.Error("which nodes have listeners of tcp")
	}
	router := g.Router(mesh.NameOf(mesh.KindVirtualRouter, "shop", "store"))
	if !slices.Equal(router.Ports, []uint32{80}) || !slices.Equal(router.TCPPorts, []uint32{6000}) {
		t.Errorf("ports %v, of tcp %v", router.Ports, router.TCPPorts)
	}
	for _, r := range router.Routes {
		if r.TCP != (r.Name == "t") || r.TCP && (r.Match.Port != 6000 || r.Timeout.Idle.Seconds() != 9) {
			t.Errorf("%+v", r)
		}
	}
	if idle := store.Listeners[1].Timeout.Idle; idle != mesh.DefaultTCPIdle {
		t.Errorf("idle time-out %v", idle)
	}
}
