package server

import "signet.example/mesh"

// touched are the virtual nodes whose views can differ by a change: those it
// names, and those that reach what it names. Building the others again would
// make one changed weight cost as much as the whole mesh.
//
// A node that reached something before the change and does not any more is
// among them, too: the first link of that chain that changed is named, and the
// node still reaches it.
type touched struct {
	everything bool
	nodes      map[nodeRef]bool
}

// touched reports what can differ from views that were built from was.
func (in nodeInputs) touched(was nodeInputs) touched {
	t := touched{nodes: map[nodeRef]bool{}, everything: in.stamp != was.stamp} // the stamp is in every route
	reach := func(n mesh.Name) {
		for node := range in.model.graph.Reaching(n) {
			t.nodes[nodeRef{node.Mesh, node.Name}] = true
		}
	}
	for _, k := range in.model.differ(was.model) {
		switch k.kind {
		case string(mesh.KindVirtualNode), string(mesh.KindVirtualService), string(mesh.KindVirtualRouter):
			reach(mesh.NameOf(mesh.Kind(k.kind), k.mesh, k.name))
		case kindNodeGroup, kindEntry, kindJWTIssuer, kindPolicySource:
			// No route, cluster or listener is made of these.
		default:
			// A Mesh is in all of its nodes' views; a Binding makes every caller of
			// its node call by mTLS. What is not known here may be in any view.
			t.everything = true
		}
	}
	for _, n := range in.endpoints.differ(was.endpoints) {
		reach(mesh.NameOf(mesh.KindVirtualNode, n.mesh, n.name))
	}
	return t
}

func (t touched) has(n *mesh.VirtualNode) bool {
	return t.everything || n == nil || t.nodes[nodeRef{n.Mesh, n.Name}]
}
