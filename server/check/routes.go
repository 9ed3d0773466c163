package check

import (
	"fmt"
	"slices"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
)

// routing is what services lead to.
type routing struct {
	graph *mesh.Graph
	known *fleet.Registered
	found func(proxy.Ref) bool     // reports whether instances are known that are not registered
	lost  map[*fleet.Endpoint]bool // of known, who would not be there any more
}

// target is a virtual node that calls of a service are sent to.
type target struct {
	node     proxy.Ref
	where    string // what leads there
	share    string // of the calls
	unserved string // why nobody is behind it, "" where somebody is, or may be
}

// String reports what is wrong.
func (t target) String() string {
	return fmt.Sprintf("%s leads to %s, %s: %s of its calls fail", t.where, t.node.Name, t.unserved, t.share)
}

// nobody reports why a service has no target at all, "" where it has.
func (r routing) nobody(s *mesh.VirtualService) string {
	router := r.graph.Router(s.Router)
	switch {
	case s.Node != proxy.Ref{} || router != nil && len(router.Routes) > 0:
		return ""
	case router != nil:
		return fmt.Sprintf("its virtual router %s has no route", router.Name)
	}
	return "it has no provider"
}

// targets lists each virtual node once.
func (r routing) targets(s *mesh.VirtualService) []target {
	if s.Node != (proxy.Ref{}) {
		return []target{{s.Node, "it", "all", r.unservedBy(s.Node)}}
	}
	router := r.graph.Router(s.Router)
	if router == nil {
		return nil
	}
	var list []target
	seen := map[proxy.Ref]bool{}
	for _, route := range router.Routes {
		var total, served uint32
		for _, t := range route.Targets {
			if total += t.Weight; r.unservedBy(t.Node) == "" {
				served += t.Weight
			}
		}
		for _, t := range route.Targets {
			if t.Weight > 0 && !seen[t.Node] {
				seen[t.Node] = true
				share := fmt.Sprintf("%d of %d", t.Weight, total)
				if served == 0 {
					share = "all"
				}
				list = append(list, target{t.Node, "route " + route.Name, share, r.unservedBy(t.Node)})
			}
		}
	}
	return list
}

// unservedBy reports why nobody is behind a target, "" where somebody is, or may
// be: what a name resolves to is not known here.
func (r routing) unservedBy(node proxy.Ref) string {
	registered := r.known.Of(node)
	if len(r.lost) > 0 {
		registered = slices.DeleteFunc(slices.Clone(registered), func(e *fleet.Endpoint) bool { return r.lost[e] })
	}
	if len(registered) == 0 {
		switch {
		case r.graph.Node(node).DNS != nil || r.found != nil && r.found(node):
			return ""
		case len(r.lost) > 0:
			return "which then has no endpoint"
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

// routes is about services that are declared as backends and that nobody
// answers: calls of them fail with 503, all or a share.
func (l Look) routes() []*api.Finding {
	var list []*api.Finding
	graph, known := l.Stored.Graph(), l.Endpoints
	for _, name := range graph.Meshes() {
		callers := map[*mesh.VirtualService]int{}
		for _, n := range graph.Nodes(name) {
			for _, b := range n.Backends {
				callers[graph.Service(b.Service)]++
			}
		}
		for _, s := range graph.Services(name) {
			severity, who := sevError, fmt.Sprintf("%d virtual nodes or gateways call it", callers[s])
			switch callers[s] {
			case 0:
				severity, who = sevWarning, "no virtual node declares it as a backend, and no gateway leads there"
			case 1:
				who = "one virtual node or gateway calls it"
			}
			list = append(list, routing{graph: graph, known: known, found: l.Found}.findings(s, severity, who)...)
		}
	}
	return list
}

func (r routing) findings(s *mesh.VirtualService, severity api.Finding_Severity, who string) []*api.Finding {
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
