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
	m, known := a.model(), a.endpoints.snapshot()
	for _, name := range m.graph.Meshes() {
		callers := map[*mesh.VirtualService]int{}
		for _, n := range m.graph.Nodes(name) {
			for _, s := range n.Backends {
				callers[s]++
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
			list = append(list, serviceFindings(s, known, severity, who)...)
		}
	}
	return list
}

func serviceFindings(s *mesh.VirtualService, known *registered, severity, who string) []*api.Finding {
	subject := fmt.Sprintf("VirtualService %s/%s", s.Mesh, s.Name)
	if s.Node == nil && (s.Router == nil || len(s.Router.Routes) == 0) {
		what := "it has no provider"
		if s.Router != nil {
			what = fmt.Sprintf("its virtual router %s has no route", s.Router.Name)
		}
		return []*api.Finding{finding(findNoProvider, severity, subject, "signet apply -f <file with its provider, or a route>",
			"%s: every call of it fails; %s", what, who)}
	}
	var list []*api.Finding
	unserved := func(t mesh.WeightedTarget, where, share string) {
		if why := unservedBy(t, known); why != "" {
			list = append(list, finding(findNoEndpoint, severity, subject+" to VirtualNode "+t.Node.Name,
				fmt.Sprintf("start a proxy of %s/%s: `signet agent` on a host whose group has a Binding for it; signet get agents", s.Mesh, t.Node.Name),
				"%s leads to %s, %s: %s of its calls fail; %s", where, t.Node.Name, why, share, who))
		}
	}
	if s.Node != nil {
		unserved(mesh.WeightedTarget{Node: s.Node, Weight: 1}, "it", "all")
	}
	if s.Router != nil {
		seen := map[*mesh.VirtualNode]bool{}
		for _, r := range s.Router.Routes {
			var total uint32
			for _, t := range r.Targets {
				total += t.Weight
			}
			for _, t := range r.Targets {
				if t.Weight > 0 && !seen[t.Node] {
					seen[t.Node] = true
					unserved(t, "route "+r.Name, fmt.Sprintf("%d of %d", t.Weight, total))
				}
			}
		}
	}
	return list
}

// unservedBy tells why nobody is behind a target, "" where somebody is, or may
// be: what a name resolves to is not known here.
func unservedBy(t mesh.WeightedTarget, known *registered) string {
	registered := known.of(nodeRef{t.Node.Mesh, t.Node.Name})
	if len(registered) == 0 {
		if t.Node.DNS != nil {
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
