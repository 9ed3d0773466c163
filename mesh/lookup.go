package mesh

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Meshes lists the meshes' names, sorted.
func (g *Graph) Meshes() []string { return slices.Sorted(maps.Keys(g.meshes)) }

// Mesh is a mesh's spec; nil if there is none of that name.
func (g *Graph) Mesh(mesh string) *MeshSpec {
	if m := g.meshes[mesh]; m != nil {
		return m.spec
	}
	return nil
}

// Node finds a virtual node by App Mesh's names; nil if there is none.
func (g *Graph) Node(mesh, name string) *VirtualNode {
	if m := g.meshes[mesh]; m != nil {
		return m.nodes[name]
	}
	return nil
}

// Service finds a virtual service by the name that callers use, whatever its
// case; nil if there is none.
func (g *Graph) Service(mesh, name string) *VirtualService {
	if m := g.meshes[mesh]; m != nil {
		return m.services[strings.ToLower(name)]
	}
	return nil
}

// Router finds a virtual router; nil if there is none.
func (g *Graph) Router(mesh, name string) *VirtualRouter {
	if m := g.meshes[mesh]; m != nil {
		return m.routers[name]
	}
	return nil
}

// Nodes lists a mesh's virtual nodes by name.
func (g *Graph) Nodes(mesh string) []*VirtualNode {
	if m := g.meshes[mesh]; m != nil {
		return sorted(m.nodes)
	}
	return nil
}

// Services lists a mesh's virtual services by name.
func (g *Graph) Services(mesh string) []*VirtualService {
	if m := g.meshes[mesh]; m != nil {
		return sorted(m.services)
	}
	return nil
}

// Routers lists a mesh's virtual routers by name.
func (g *Graph) Routers(mesh string) []*VirtualRouter {
	if m := g.meshes[mesh]; m != nil {
		return sorted(m.routers)
	}
	return nil
}

func sorted[V any](m map[string]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

func sortServices(s []*VirtualService) {
	slices.SortFunc(s, func(a, b *VirtualService) int {
		return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
}

// ClientTLS is what the node was told to do when it calls s; nil means that
// the connection is managed: the target's own SPIFFE ID and nothing else.
func (n *VirtualNode) ClientTLS(s *VirtualService) *ClientTLS { return n.clientTLS[s] }

// Targets lists the nodes that can answer for s, each once, by name.
func (s *VirtualService) Targets() []*VirtualNode {
	seen := map[string]*VirtualNode{}
	if s.Node != nil {
		seen[s.Node.Name] = s.Node
	}
	if s.Router != nil {
		for _, r := range s.Router.Routes {
			for _, t := range r.Targets {
				seen[t.Node.Name] = t.Node
			}
		}
	}
	return sorted(seen)
}
