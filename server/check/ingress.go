package check

import (
	"net/netip"
	"strings"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/server/kinds"
)

// ingress are the findings of a mesh whose listeners refuse what their load balancers send.
func ingress(g *mesh.Graph, name string) []*api.Finding {
	var list []*api.Finding
	for _, node := range g.Nodes(name) {
		for _, l := range node.Listeners {
			if l.TLS == nil || l.TLS.Mode != mesh.TLSStrict || l.ProxyProtocol {
				continue // a load balancer of connections carries its clients' TLS
			}
			for _, in := range l.Ingress {
				list = append(list, finding(findIngress, sevWarning, kinds.Node(node.Ref).String(),
					"set tls.mode PERMISSIVE at that listener for as long as they call it in plaintext, or have them call a gateway; when nothing there does, take the ingress out of the options",
					"port %d is STRICT and refuses plaintext, which is what ingress %s (%s) sends: its target group finds every target at this port unhealthy", l.Port, in.Name, rangesOf(in.Ranges)))
			}
		}
	}
	return list
}

func rangesOf(list []netip.Prefix) string {
	const most = 4
	var texts []string
	for i, r := range list {
		if i == most {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}
