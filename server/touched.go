package server

import (
	"slices"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/kinds"
)

// touched are the virtual nodes whose views can differ by a change: those it
// names, and those that reach what it names. Building the others again would
// make one changed weight cost as much as the whole mesh.
//
// A node that reached something before the change and does not any more is
// among them, too: the first link of that chain that changed is named, and the
// node still reaches it.
type touched struct {
	everything bool
	nodes      map[proxy.Ref]bool // some may be there no more
}

// touched reports what can differ from views that were built from was.
func (in nodeInputs) touched(was nodeInputs) touched {
	if was.model == nil {
		return touched{everything: true}
	}
	t := touched{nodes: map[proxy.Ref]bool{}, everything: in.stamp != was.stamp} // the stamp is in every route
	reach := func(n mesh.Name) {
		if n.Kind == mesh.KindVirtualNode {
			t.nodes[proxy.Node(n.Mesh, n.Name)] = true
		}
		for node := range in.model.graph.Reaching(n) {
			t.nodes[proxy.Node(node.Mesh, node.Name)] = true
		}
	}
	for _, k := range in.model.differ(was.model) {
		switch k.Row().Reach {
		case kinds.Callers:
			reach(mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name))
		case kinds.Nobody:
		default:
			t.everything = true
		}
	}
	for _, n := range in.endpoints.Differ(was.endpoints) {
		reach(mesh.NameOf(mesh.KindVirtualNode, n.Mesh, n.Name))
	}
	return t
}

// in lists them as far as they are in a graph, by mesh and name.
func (t touched) in(g *mesh.Graph) []proxy.Ref {
	var list []proxy.Ref
	if t.everything {
		for _, name := range g.Meshes() {
			for _, n := range g.Nodes(name) {
				list = append(list, proxy.Node(n.Mesh, n.Name))
			}
		}
		return list
	}
	for at := range t.nodes {
		if g.Node(at.Mesh, at.Name) != nil {
			list = append(list, at)
		}
	}
	slices.SortFunc(list, proxy.Ref.Compare)
	return list
}
