package check

import (
	"strings"
	"testing"

	"signet.example/api"
)

func TestAProxyThatWaitsIsToldOfTheGroupThatItsBindingIsFor(t *testing.T) {
	binding := func(name, group, node string) string {
		return own("Binding", name, "group: "+group+", mesh: shop, virtualNode: "+node+", selectors: [\"signet:proxy:web\"]")
	}
	for _, c := range []struct{ what, bindings, says, fix string }{
		{"another group's", binding("red", "rack", "web"), "its host is in group g, and the Bindings for that virtual node are for others: red (group rack, selectors signet:proxy:web)", "set group: g in binding red"},
		{"of two groups", binding("red", "rack", "web") + binding("blue", "hosts", "web"), "blue (group hosts, selectors signet:proxy:web); red (group rack", "set group: g in binding blue"},
		{"another node's", binding("red", "g", "orders"), "its host is in group g, and no Binding of any group is for that virtual node", "with group: g"},
		{"its own", binding("red", "g", "web"), "", "one must name the proxy's virtual node"},
	} {
		l := sound(t)
		l.Stored = modelOf(t, all+own("NodeGroup", "g", "")+own("NodeGroup", "hosts", "")+c.bindings)
		r := l.Agents[0].Report
		r.Proxies = []*api.ProxyStatus{{Name: "web", State: api.ProxyStatus_WAITING.Enum(), VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}}}
		r.Own = []*api.AgentFinding{{Kind: api.AgentFinding_PROXY_WAITING.Enum(), KindWord: "proxy-waiting", Proxy: "web", Text: "proxy web waits: no binding"}}
		for _, f := range l.reports() {
			if f.GetId() == findAgentOwn && (!strings.Contains(f.GetCause(), c.says) || c.says == "" && f.GetCause() != "proxy-waiting: proxy web waits: no binding" || !strings.Contains(f.GetFix(), c.fix)) {
				t.Errorf("%s: it says %q, and to mend it %q", c.what, f.GetCause(), f.GetFix())
			}
		}
	}
}

// A name of Kubernetes is not the node's name: no Binding for it would be taken.
func TestAProxyThatWaitsForANodeThatIsNotThereIsToldSo(t *testing.T) {
	l := sound(t)
	l.Stored = modelOf(t, all+"---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front, namespace: ns}\nspec: {}\n"+own("NodeGroup", "g", ""))
	r := l.Agents[0].Report
	r.Proxies = []*api.ProxyStatus{{Name: "web", State: api.ProxyStatus_WAITING.Enum(), VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "front"}}}
	r.Own = []*api.AgentFinding{{Kind: api.AgentFinding_PROXY_WAITING.Enum(), KindWord: "proxy-waiting", Proxy: "web", Text: "proxy web waits: no binding"}}
	for _, f := range l.reports() {
		if f.GetId() == findAgentOwn && (!strings.Contains(f.GetCause(), "there is no VirtualNode shop/front; with a namespace its name is name_namespace, or its awsName: did you mean front_ns?") || !strings.Contains(f.GetFix(), "reload the agent")) {
			t.Errorf("it says %q, and to mend it %q", f.GetCause(), f.GetFix())
		}
	}
}
