package views

import (
	"slices"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/kinds"
)

// affected are the virtual nodes and gateways whose views can differ by a change: those it
// names, those that reach what it names, and those that know their callers by name and
// are reached. Building the others again would
// make one changed weight cost as much as the whole mesh.
//
// Those that reached it before the change are among them, too: a gateway has the routes that
// name it, and one that is deleted, or names another gateway now, is not reached any more.
type affected struct {
	everything bool
	nodes      map[proxy.Ref]bool // some may be there no more
}

// affected reports what can differ from views that were built from was.
func (in nodeInputs) affected(was nodeInputs) affected {
	if was.model == nil {
		return affected{everything: true}
	}
	t := affected{nodes: map[proxy.Ref]bool{}, everything: in.stamp != was.stamp} // the stamp is in every route
	reach := func(g *mesh.Graph, n mesh.Name) {
		if ref, ok := n.Proxied(); ok {
			t.nodes[ref] = true
		}
		for node := range g.Reaching(n) {
			t.nodes[node.Ref] = true
		}
	}
	before, after := was.model.Graph(), in.model.Graph()
	for k := range in.model.Objects().Differ(was.model.Objects()) {
		switch k.Row().Reach {
		case kinds.Callers:
			n := mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name)
			for _, g := range []*mesh.Graph{before, after} {
				reach(g, n)
				t.called(g, n)
				for _, other := range g.Namesakes(n) { // what has an address, and is looked for by name, hangs on both
					reach(g, other)
				}
			}
		case kinds.Nobody:
		default:
			t.everything = true
		}
	}
	for _, n := range slices.Concat(in.endpoints.Differ(was.endpoints), in.awaited.Differ(was.awaited)) {
		reach(after, mesh.NodeName(n))
	}
	for n := range in.found.Differ(was.found) {
		reach(after, mesh.NodeName(n))
	}
	return t
}

// called adds those to whose listeners of protocol tcp n leads: they accept their callers
// by name.
func (t affected) called(g *mesh.Graph, n mesh.Name) {
	for node := range g.CalledBy(n) {
		if node.HasTCP() {
			t.nodes[node.Ref] = true
		}
	}
}

// Affected lists the virtual nodes and gateways whose views can differ between two looks, as far as
// the later one has them.
func Affected(was, is Look) []proxy.Ref {
	return is.nodeInputs().affected(was.nodeInputs()).in(is.Model.Graph())
}

// in lists them as far as they are in a graph, by mesh and name.
func (t affected) in(g *mesh.Graph) []proxy.Ref {
	var list []proxy.Ref
	if t.everything {
		for _, name := range g.Meshes() {
			for _, n := range g.Nodes(name) {
				list = append(list, n.Ref)
			}
		}
		return list
	}
	for at := range t.nodes {
		if g.Node(at) != nil {
			list = append(list, at)
		}
	}
	slices.SortFunc(list, proxy.Ref.Compare)
	return list
}
