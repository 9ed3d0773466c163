package server

import (
	"fmt"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
)

// routes is what a service leads to now.
type routes struct {
	graph *mesh.Graph
	known *fleet.Registered
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
func (r routes) nobody(s *mesh.VirtualService) string {
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
func (r routes) targets(s *mesh.VirtualService) []target {
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
		var total uint32
		for _, t := range route.Targets {
			total += t.Weight
		}
		for _, t := range route.Targets {
			if t.Weight > 0 && !seen[t.Node] {
				seen[t.Node] = true
				list = append(list, target{t.Node, "route " + route.Name, fmt.Sprintf("%d of %d", t.Weight, total), r.unservedBy(t.Node)})
			}
		}
	}
	return list
}

// unservedBy reports why nobody is behind a target, "" where somebody is, or may
// be: what a name resolves to is not known here.
func (r routes) unservedBy(node proxy.Ref) string {
	registered := r.known.Of(node)
	if len(registered) == 0 {
		if r.graph.Node(node).DNS != nil {
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

// mostUnserved is how many targets are named that a change leads to and that nobody
// answers for; more are counted.
const mostUnserved = 20

// unserved warns of services that somebody answers before a change, and after it not,
// or not all of their calls. What is new, or is not answered before, waits for its proxies.
func unserved(before, after *mesh.Graph, known *fleet.Registered) []string {
	was, will := routes{before, known}, routes{after, known}
	var list []string
	for _, name := range after.Meshes() {
		for _, s := range after.Services(name) {
			old := before.Service(s.GraphName())
			if old == nil || old == s && before.Router(old.Router) == after.Router(s.Router) {
				continue
			}
			said, answered := map[proxy.Ref]bool{}, false
			for _, t := range was.targets(old) {
				said[t.node] = t.unserved != ""
				answered = answered || t.unserved == ""
			}
			if !answered {
				continue
			}
			service := fmt.Sprintf("virtual service %s/%s: ", s.Mesh, s.Name)
			if what := will.nobody(s); what != "" {
				list = append(list, service+what+": every call of it fails")
			}
			for _, t := range will.targets(s) {
				if t.unserved != "" && !said[t.node] {
					list = append(list, service+t.String()+`; start a proxy of it first (docs/APPMESH.md, "Renaming a virtual node")`)
				}
			}
		}
	}
	if more := len(list) - mostUnserved; more > 0 {
		list = append(list[:mostUnserved], fmt.Sprintf("%d more targets of virtual services have no endpoint", more))
	}
	return list
}
