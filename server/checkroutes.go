package server

import (
	"context"
	"fmt"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
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
				callers[m.graph.Service(name, b.Service)]++
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

// routes is what a service leads to now.
type routes struct {
	graph *mesh.Graph
	known *fleet.Registered
}

func (r routes) findings(s *mesh.VirtualService, severity api.Finding_Severity, who string) []*api.Finding {
	subject, router := fmt.Sprintf("VirtualService %s/%s", s.Mesh, s.Name), r.graph.RouterOf(s)
	if s.Node == "" && (router == nil || len(router.Routes) == 0) {
		what := "it has no provider"
		if router != nil {
			what = fmt.Sprintf("its virtual router %s has no route", router.Name)
		}
		return []*api.Finding{finding(findNoProvider, severity, subject, "signet apply -f <file with its provider, or a route>",
			"%s: every call of it fails; %s", what, who)}
	}
	var list []*api.Finding
	unserved := func(node, where, share string) {
		if why := r.unservedBy(s.Mesh, node); why != "" {
			list = append(list, finding(findNoEndpoint, severity, subject+" to VirtualNode "+node,
				fmt.Sprintf("start a proxy of %s/%s: `signet agent` on a host whose group has a Binding for it; signet get agents", s.Mesh, node),
				"%s leads to %s, %s: %s of its calls fail; %s", where, node, why, share, who))
		}
	}
	if s.Node != "" {
		unserved(s.Node, "it", "all")
	}
	if router != nil {
		seen := map[string]bool{}
		for _, route := range router.Routes {
			var total uint32
			for _, t := range route.Targets {
				total += t.Weight
			}
			for _, t := range route.Targets {
				if t.Weight > 0 && !seen[t.Node] {
					seen[t.Node] = true
					unserved(t.Node, "route "+route.Name, fmt.Sprintf("%d of %d", t.Weight, total))
				}
			}
		}
	}
	return list
}

// unservedBy reports why nobody is behind a target, "" where somebody is, or may
// be: what a name resolves to is not known here.
func (r routes) unservedBy(in, node string) string {
	registered := r.known.Of(proxy.Node(in, node))
	if len(registered) == 0 {
		if r.graph.Node(in, node).DNS != nil {
			return ""
		}
		return "which has no endpoint"
	}
	for i := range registered {
		if registered[i].Healthy && registered[i].Gone.IsZero() {
			return ""
		}
	}
	return "none of whose endpoints is healthy and connected"
}
