package check

import (
	"net/netip"
	"strings"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/internal/plain"
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

// unmet are the findings of load balancers whose users' tokens come from where no listener
// takes them: whoever the policy knows by them is nobody to it.
func (l Look) unmet() []*api.Finding {
	var list []*api.Finding
	var known map[string]bool
	for k, o := range l.Stored.Objects().From(kinds.Key{Kind: kinds.ALBIssuer}) {
		issuer, ok := o.Value.(jwt.Issuer)
		if k.Kind != kinds.ALBIssuer || !ok {
			break
		}
		if known == nil { // few have any
			known = ingressNames(l.Stored.Graph())
		}
		for _, name := range issuer.ALB.Ingress {
			if !known[name] {
				list = append(list, finding(findNoIngress, sevWarning, kinds.ALBIssuer+" "+k.Name,
					"name the ingress of the listener that the load balancer calls so (VirtualNodeOptions, VirtualGatewayOptions), or correct spec.ingress of the ALBIssuer; signet apply -f FILE",
					"it takes tokens from ingress %s, and no listener has one of this name: to the policy, who comes by that load balancer is %s", plain.Text(name), whoseUser(issuer.ALB)))
			}
		}
	}
	return list
}

// whoseUser is who comes by load balancers of which no listener takes tokens.
func whoseUser(of *jwt.ALB) string {
	if len(of.Callers) == 0 {
		return "no user"
	}
	return "a user only where one of its callers passes the token on"
}

// ingressNames are those of all meshes, since an issuer is of none.
func ingressNames(g *mesh.Graph) map[string]bool {
	names := map[string]bool{}
	for _, of := range g.Meshes() {
		for _, node := range g.Nodes(of) {
			for _, l := range node.Listeners {
				for _, in := range l.Ingress {
					names[in.Name] = true
				}
			}
		}
	}
	return names
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
