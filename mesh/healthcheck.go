package mesh

import (
	"cmp"
	"slices"
)

// HealthChecks lists each path that clients' proxies ask of a node, once, by
// mesh, node and path. A target of weight 0 is probed like any other.
func (g *Graph) HealthChecks() []HealthCheck {
	var out []HealthCheck
	for _, mesh := range g.Meshes() {
		for _, n := range g.Nodes(mesh) {
			paths := map[string]bool{}
			for _, l := range n.Listeners {
				if l.Probe == nil || paths[l.Probe.Path] || l.Probe.Protocol != "http" && l.Probe.Protocol != "http2" {
					continue
				}
				paths[l.Probe.Path] = true
				out = append(out, HealthCheck{Mesh: mesh, Node: n.Name, Method: "GET", Path: l.Probe.Path, Callers: g.callersOf(n)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b HealthCheck) int {
		return cmp.Or(cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Path, b.Path))
	})
	return out
}

// callersOf lists the nodes that declare a backend which reaches n, each once, by name.
func (g *Graph) callersOf(n *VirtualNode) []*VirtualNode {
	var list []*VirtualNode
	g.callers(NameOf(KindVirtualNode, n.Mesh, n.Name), func(caller *VirtualNode) bool {
		list = append(list, caller)
		return true
	})
	slices.SortFunc(list, func(a, b *VirtualNode) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(list)
}
