package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/server"
	"signet.example/server/kinds"
)

// canary has web call orders by a router, admin call ledger, and lonely nobody.
var canary = func() string {
	node := func(name, backends string) string {
		return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n  backends: [%s]\n", name, backends)
	}
	calls := func(service string) string { return "{virtualService: {virtualServiceRef: {name: " + service + "}}}" }
	return strings.Join([]string{
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n",
		node("web", calls("orders")), node("admin", calls("ledger")), node("lonely", ""),
		node("orders-1", ""), node("orders-2", ""), node("ledger", ""),
		ordersRouter(90), service("orders", "virtualRouter: {virtualRouterRef: {name: orders}}"),
		service("ledger", "virtualNode: {virtualNodeRef: {name: ledger}}"),
	}, "---\n")
}()

func backendGroup(services ...string) string {
	return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: BackendGroup\nmetadata: {name: all}\nspec: {virtualservices: [{name: " + strings.Join(services, "}, {name: ") + "}]}\n"
}

func inGroup(node string) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n  backendGroups: [{name: all}]\n", node)
}

func service(name, provider string) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n  awsName: %s.shop.internal\n  provider: {%s}\n", name, name, provider)
}

func ordersRouter(weight int) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: orders}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n  routes: [{name: all, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: orders-1}, weight: %d}, {virtualNodeRef: {name: orders-2}, weight: 10}]}}}]\n", weight)
}

func TestAnApplyTranslatesTheNodesThatItCanChange(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	all := []string{"admin", "ledger", "lonely", "orders-1", "orders-2", "web"}
	for _, c := range []struct {
		name, applied string
		want          []string
	}{
		{"a router: its callers", ordersRouter(50), []string{"web"}},
		{"a service that moves to a node: its callers", service("orders", "virtualNode: {virtualNodeRef: {name: ledger}}"), []string{"web"}},
		{"a caller that stops calling: itself", nodeOnPort("web", 8080), []string{"web"}},
		{"a service: its callers", service("ledger", "virtualNode: {virtualNodeRef: {name: orders-1}}"), []string{"admin"}},
		{"a node behind a router: itself and its callers", nodeOnPort("orders-2", 8081), []string{"orders-2", "web"}},
		{"a node behind a service: itself and its callers", nodeOnPort("ledger", 8081), []string{"admin", "ledger"}},
		{"a node that nobody calls", nodeOnPort("lonely", 8081), []string{"lonely"}},
		{"a backend group: those whose backends it is, and who has it now", backendGroup("orders") + "---\n" + inGroup("lonely"), []string{"lonely"}},
		{"options of a node behind a service: itself and its callers", nodeOptions("ledger", 8080), []string{"admin", "ledger"}},
		{"options of a node behind a router: itself and its callers", nodeOptions("orders-1", 8080), []string{"orders-1", "web"}},
		{"a mesh: all", "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {meshServiceDiscovery: {ipPreference: IPv4_ONLY}}\n", all},
		{"options of a mesh: all", "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {envoyHeaders: suppress}\n", all},
		{"a binding: all", "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: g}\nspec: {}\n---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: b}\nspec: {group: g, mesh: shop, virtualNode: web, selectors: [\"unix:uid:1\"]}\n", all},
		{"an entry: none", "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: g}\nspec: {}\n---\napiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: e}\nspec: {group: g, spiffeID: \"spiffe://prod.example/x\", selectors: [\"unix:uid:1\"]}\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, differ, err := server.Touched(td, canary, c.applied)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("translated again (-want +got):\n%s", diff)
			}
			for _, node := range differ {
				if !slices.Contains(got, node) {
					t.Errorf("%s would be served as it was before", node)
				}
			}
		})
	}
}

func nodeOptions(node string, port int) string {
	return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: %s}\nspec: {listeners: [{port: %d, circuitBreaker: {maxRetries: 3}}]}\n", node, port)
}

func TestOptionsAreAppliedListedAndDeletedBeforeTheirNode(t *testing.T) {
	r := newRig(t)
	r.apply(canary + "---\n" + nodeOptions("ledger", 8080))
	got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "vno"})
	if err != nil || len(got.GetObjects()) != 1 || !strings.Contains(got.GetObjects()[0].GetYaml(), "apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\n") || !strings.Contains(got.GetObjects()[0].GetYaml(), "maxRetries: 3") {
		t.Errorf("%v, %v", got, err)
	}
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: ledger}\nspec: {awsName: ledger.shop.internal}\n")
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "virtualnode", Name: "ledger"}); err == nil || !strings.Contains(err.Error(), "virtualNodeOptions ledger refers to virtualNode ledger") {
		t.Errorf("a node is deleted while it has options: %v", err)
	}
	for _, of := range []struct{ kind, name string }{{"virtualnodeoptions", "ledger"}, {"virtualnode", "ledger"}} {
		if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: of.kind, Name: of.name}); err != nil {
			t.Error(err)
		}
	}
}

func nodeOnPort(name string, port int) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: %d, protocol: http}}]\n", name, port)
}

func TestABackendGroupReachesTheProxiesOfItsNodesAndNoOthers(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	touched, differ, err := server.Touched(td, canary+"---\n"+backendGroup("orders")+"---\n"+inGroup("grouped"), backendGroup("orders", "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"grouped"}; !slices.Equal(touched, want) || !slices.Equal(differ, want) {
		t.Errorf("translated again: %v, with another view: %v", touched, differ)
	}
}

func TestABackendGroupIsAppliedListedAndNotDeletedWhileANodeHasIt(t *testing.T) {
	r := newRig(t)
	r.apply(canary + "---\n" + backendGroup("orders") + "---\n" + inGroup("grouped"))
	got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "bg"})
	if err != nil || len(got.GetObjects()) != 1 || !strings.Contains(got.GetObjects()[0].GetYaml(), "virtualservices:\n    - name: orders\n") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "backendgroup", Name: "all"}); err == nil || !strings.Contains(err.Error(), "virtualNode grouped refers to backendGroup all") {
		t.Errorf("deleted while a node has it: %v", err)
	}
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "virtualservice", Name: "orders.shop.internal"}); err == nil || !strings.Contains(err.Error(), "backendGroup all refers to virtualService orders") {
		t.Errorf("a service that a group lists is deleted: %v", err)
	}
	r.apply(strings.Replace(inGroup("grouped"), "  backendGroups: [{name: all}]\n", "", 1))
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "bg", Name: "all"}); err != nil {
		t.Error(err)
	}
}

// A listener of protocol tcp knows its callers by name, so that a change of who may speak
// to a node is one of the node.
func TestAChangeOfWhoMaySpeakToANodeByTCPReachesTheNode(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	object := func(kind, name, spec string) string {
		return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)
	}
	store := func(name string) string {
		return object("VirtualNode", name, "{listeners: [{portMapping: {port: 6379, protocol: tcp}}]}")
	}
	router := func(node string) string {
		return object("VirtualRouter", "r", "{listeners: [{portMapping: {port: 80, protocol: tcp}}], routes: [{name: t, tcpRoute: {action: {weightedTargets: [{virtualNodeRef: {name: "+node+"}, weight: 1}]}}}]}")
	}
	caller := func(name, service string) string {
		return object("VirtualNode", name, "{backends: [{virtualService: {virtualServiceRef: {name: "+service+"}}}]}")
	}
	stored := strings.Join([]string{
		object("Mesh", "shop", "{}"), store("one"), store("two"), router("one"), caller("web", "routed"), caller("idle", "none"),
		service("routed", "virtualRouter: {virtualRouterRef: {name: r}}"), object("VirtualService", "none", "{}"),
		object("BackendGroup", "all", "{virtualservices: [{name: none}]}"), inGroup("grouped"),
	}, "---\n")
	for what, c := range map[string]struct {
		applied string
		want    []string
	}{
		"another caller":             {caller("idle", "routed"), []string{"idle", "one"}},
		"a caller less":              {caller("web", "none"), []string{"one", "web"}},
		"a route that leads on":      {router("two"), []string{"one", "two", "web"}},
		"a service nobody provides":  {object("VirtualService", "routed", "{awsName: routed.shop.internal}"), []string{"one", "web"}},
		"a service of another node":  {service("routed", "virtualNode: {virtualNodeRef: {name: two}}"), []string{"one", "two", "web"}},
		"a group with more services": {backendGroup("none", "routed"), []string{"grouped", "one"}},
	} {
		touched, differ, err := server.Touched(td, stored, c.applied)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(differ)
		if !slices.Equal(touched, c.want) || !slices.Equal(differ, c.want) {
			t.Errorf("%s: translated again %v, of which differ %v, want %v", what, touched, differ, c.want)
		}
	}
}

// A gateway does not name its routes, they name it: one that is gone, or is another gateway's now,
// is reached from the gateway only in the graph before.
func TestAGatewayLosesARouteThatIsDeletedOrAnotherGateways(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	gateway := func(name string) string {
		return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: " + name + "}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	}
	route := func(name, of string) string {
		return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: " + name + "}\nspec: {virtualGatewayRef: {name: " + of + "}, httpRoute: {match: {prefix: /" + name + "}, action: {target: {virtualService: {virtualServiceRef: {name: orders}}}}}}\n"
	}
	stored := strings.Join([]string{canary, gateway("edge"), gateway("inner"), route("first", "edge"), route("second", "edge")}, "---\n")
	for what, c := range map[string]struct {
		applied string
		removed []kinds.Key
		want    []string
	}{
		"deleted":           {removed: []kinds.Key{{Kind: "GatewayRoute", Mesh: "shop", Name: "second"}}, want: []string{"edge"}},
		"another gateway's": {applied: route("second", "inner"), want: []string{"edge", "inner"}},
	} {
		touched, differ, err := server.Touched(td, stored, c.applied, c.removed...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if diff := cmp.Diff(c.want, touched); diff != "" {
			t.Errorf("%s: translated again (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(c.want, differ); diff != "" {
			t.Errorf("%s: of which the translation differs (-want +got):\n%s", what, diff)
		}
	}
}
