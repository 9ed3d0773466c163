package mesh

import (
	"iter"
	"slices"
	"strings"

	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// Meshes lists the meshes' names, sorted.
func (g *Graph) Meshes() []string {
	var names []string
	for name := range g.meshes.All() {
		names = append(names, string(name))
	}
	return names
}

func (g *Graph) mesh(name string) *meshInfo { return g.meshes.Get(ordered.String(name)) }

// Mesh is a mesh's spec; nil if there is none of that name.
func (g *Graph) Mesh(mesh string) *MeshSpec {
	if m := g.mesh(mesh); m != nil {
		return m.spec
	}
	return nil
}

// Node finds a virtual node or gateway; nil if there is none, and for the zero Ref.
func (g *Graph) Node(r proxy.Ref) *VirtualNode {
	if r.Kind == "" {
		return nil
	}
	return g.nodes.Get(NodeName(r))
}

// Service finds a virtual service; nil if there is none, and for the zero Name.
func (g *Graph) Service(n Name) *VirtualService { return g.services.Get(n) }

// GraphName is the name by which a graph finds the service.
func (s *VirtualService) GraphName() Name { return NameOf(KindVirtualService, s.Mesh, s.Name) }

// Router finds a virtual router; nil if there is none, and for the zero Name.
func (g *Graph) Router(n Name) *VirtualRouter { return g.routers.Get(n) }

// Nodes lists what proxies of a mesh run for: its virtual gateways by name, then its
// virtual nodes.
func (g *Graph) Nodes(mesh string) []*VirtualNode { return of(g.nodes, "", mesh) }

// Services lists a mesh's virtual services by name.
func (g *Graph) Services(mesh string) []*VirtualService {
	return of(g.services, KindVirtualService, mesh)
}

// Routers lists a mesh's virtual routers by name.
func (g *Graph) Routers(mesh string) []*VirtualRouter { return of(g.routers, KindVirtualRouter, mesh) }

func of[V comparable](all ordered.Map[Name, V], k Kind, mesh string) []V {
	var list []V
	for name, v := range all.From(Name{k, mesh, ""}) {
		if name.Mesh != mesh {
			break
		}
		list = append(list, v)
	}
	return list
}

// Reaching lists the virtual nodes and gateways of which something depends on the object: those
// whose calls lead to it, and a node itself. An object that is not there reaches none.
func (g *Graph) Reaching(n Name) iter.Seq[*VirtualNode] {
	return func(yield func(*VirtualNode) bool) {
		names := []Name{n}
		if n.Kind.about() != "" { // they are of the nodes that look for them
			names = nil
			for by := range g.referrers.Get(n).All() {
				names = append(names, by)
			}
		}
		for _, n := range names {
			if node := g.nodes.Get(n); node != nil && !yield(node) || !g.callers(n, yield) {
				return
			}
		}
	}
}

// callers follows references backwards as far as the nodes that make calls.
func (g *Graph) callers(n Name, yield func(*VirtualNode) bool) bool {
	for from := range g.referrers.Get(n).All() {
		if from.Kind.about() != "" {
			continue // they call nobody, and who looks for them is the node that they are about
		}
		if node := g.nodes.Get(from); node != nil {
			if !yield(node) {
				return false
			}
		} else if !g.callers(from, yield) {
			return false
		}
	}
	return true
}

func sortCallees(list []Callee) {
	slices.SortFunc(list, func(a, b Callee) int { return a.Service.Compare(b.Service) })
}

// maxMeant is how many objects are asked for by [DidYouMean].
const maxMeant = 3

// DidYouMean is what stands behind an error about a name that nothing has: why, and
// what was probably meant; "" where that is nothing.
func DidYouMean(why string, names ...string) string {
	if len(names) == 0 {
		return ""
	}
	text := "; "
	if why != "" {
		text += why + ": "
	}
	return text + "did you mean " + strings.Join(names[:min(len(names), maxMeant)], " or ") + "?"
}
