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
		callers := g.callers(mesh)
		for _, n := range g.Nodes(mesh) {
			paths := map[string]bool{}
			for _, l := range n.Listeners {
				if l.Probe == nil || paths[l.Probe.Path] || l.Probe.Protocol != "http" && l.Probe.Protocol != "http2" {
					continue
				}
				paths[l.Probe.Path] = true
				out = append(out, HealthCheck{Mesh: mesh, Node: n.Name, Method: "GET", Path: l.Probe.Path, Callers: callers[n]})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b HealthCheck) int {
		return cmp.Or(cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Path, b.Path))
	})
	return out
}

// callers maps each node to those that declare a backend which reaches it.
func (g *Graph) callers(mesh string) map[*VirtualNode][]*VirtualNode {
	out := map[*VirtualNode][]*VirtualNode{}
	for _, caller := range g.Nodes(mesh) {
		for _, s := range caller.Backends {
			for _, n := range s.Targets() {
				if !slices.Contains(out[n], caller) {
					out[n] = append(out[n], caller)
				}
			}
		}
	}
	return out
}
