package mesh_test

import (
	"fmt"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

func foundAt(node, hostname string) []byte {
	return fmt.Appendf(nil, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  serviceDiscovery: {dns: {hostname: %s}}\n", node, hostname)
}

func TestAServiceUnderWhoseNameANodeIsFoundHasNoAddressUnlessAnAgentMayHostTheNode(t *testing.T) {
	orders := mesh.NameOf(mesh.KindVirtualService, "m", "orders.shop.internal")
	node := proxy.For("m", "x", false)
	hosted := func(n proxy.Ref) bool { return n == node }
	for hostname, misled := range map[string]bool{"orders.shop.internal": true, "Orders.SHOP.internal.": true, "other.shop.internal": false} {
		g := graphtest.Graph(t, "m.yaml", append(addressedMesh("{}", "orders.shop.internal"), foundAt("x", hostname)...))
		if got := !g.AddressOf(orders, nil).IsValid(); got != misled {
			t.Errorf("%s: without an address %t", hostname, got)
		}
		if !g.AddressOf(orders, hosted).IsValid() {
			t.Errorf("%s: an agent hosts the node, and the service has no address", hostname)
		}
		if g.LeadsBack(node) != misled {
			t.Errorf("%s: leads back %t", hostname, !misled)
		}
	}
	if graphtest.Graph(t, "m.yaml", append(addressedMesh("", "orders.shop.internal"), foundAt("x", "orders.shop.internal")...)).LeadsBack(node) {
		t.Error("in a mesh without addresses nothing leads back to one")
	}
	if graphtest.Graph(t, "m.yaml", append(addressedMesh("{}"), foundAt("x", "orders.shop.internal")...)).LeadsBack(node) {
		t.Error("a service that is not there is called by nobody")
	}
}

func TestAServiceHasItsAddressAgainWhenNoNodeIsFoundUnderItsName(t *testing.T) {
	orders := mesh.NameOf(mesh.KindVirtualService, "m", "orders")
	g := graphtest.Graph(t, "m.yaml", append(append(addressedMesh("{}", "orders"), foundAt("x", "orders")...), foundAt("y", "orders")...))
	resource := func(node, hostname string) []*mesh.Resource {
		return graphtest.Resources(t, "m.yaml", append(addressedMesh(""), foundAt(node, hostname)...))[1:]
	}
	renamed, ok := g.With(resource("x", "elsewhere"), nil)
	if !ok || renamed.AddressOf(orders, nil).IsValid() || len(renamed.Misleading(orders, nil)) != 1 {
		t.Errorf("one of two renamed: %v %v", ok, renamed.Misleading(orders, nil))
	}
	gone, ok := renamed.With(nil, []mesh.Name{mesh.NameOf(mesh.KindVirtualNode, "m", "y")})
	if !ok || !gone.AddressOf(orders, nil).IsValid() {
		t.Errorf("nobody is found there: %v", ok)
	}
	back, ok := gone.With(resource("x", "ORDERS."), nil)
	if !ok || back.AddressOf(orders, nil).IsValid() || g.AddressOf(orders, nil).IsValid() {
		t.Errorf("renamed back: %v", ok)
	}
}
