package server

import (
	"context"
	"fmt"

	"signet.example/api"
	"signet.example/mesh"
)

// checkRoutes is about services that are declared as backends and that nobody
// answers: calls of them fail with 503, all or a share.
func (a *admin) checkRoutes(context.Context) []*api.Finding {
	var list []*api.Finding
	m, known := a.model(), a.endpoints.Snapshot()
	for _, name := range m.graph.Meshes() {
		callers := map[*mesh.VirtualService]int{}
		for _, n := range m.graph.Nodes(name) {
			for _, b := range n.Backends {
				callers[m.graph.Service(b.Service)]++
			}
		}
		for _, s := range m.graph.Services(name) {
			severity, who := sevError, fmt.Sprintf("%d virtual nodes call it", callers[s])
			switch callers[s] {
			case 0:
				severity, who = sevWarning, "no virtual node declares it as a backend"
			case 1:
				who = "a virtual node calls it"
			}
			list = append(list, routes{m.graph, known}.findings(s, severity, who)...)
		}
	}
	return list
}

func (r routes) findings(s *mesh.VirtualService, severity api.Finding_Severity, who string) []*api.Finding {
	subject := fmt.Sprintf("VirtualService %s/%s", s.Mesh, s.Name)
	if what := r.nobody(s); what != "" {
		return []*api.Finding{finding(findNoProvider, severity, subject, "signet apply -f <file with its provider, or a route>",
			"%s: every call of it fails; %s", what, who)}
	}
	var list []*api.Finding
	for _, t := range r.targets(s) {
		if t.unserved != "" {
			list = append(list, finding(findNoEndpoint, severity, subject+" to VirtualNode "+t.node.Name,
				fmt.Sprintf("start a proxy of %s/%s: `signet agent` on a host whose group has a Binding for it; signet get agents", t.node.Mesh, t.node.Name),
				"%s; %s", t, who))
		}
	}
	return list
}
