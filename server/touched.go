package server

import (
	"slices"

	"signet.example/mesh"
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
	named      map[objectKey]bool
}

// touched tells what can differ from views that were built from was.
func (in nodeInputs) touched(was nodeInputs) touched {
	t := touched{named: map[objectKey]bool{}, everything: in.stamp != was.stamp} // the stamp is in every route
	for _, k := range in.model.differ(was.model) {
		t.object(k)
	}
	for _, n := range in.endpoints.differ(was.endpoints) {
		t.named[objectKey{string(mesh.KindVirtualNode), n.mesh, n.name}] = true
	}
	return t
}

func (t *touched) object(k objectKey) {
	switch k.kind {
	case string(mesh.KindVirtualNode), string(mesh.KindVirtualService), string(mesh.KindVirtualRouter):
		t.named[k] = true
	case kindNodeGroup, kindEntry, kindJWTIssuer, kindPolicySource:
		// No route, cluster or listener is made of these.
	default:
		// A Mesh is in all of its nodes' views; a Binding makes every caller of
		// its node call by mTLS. What is not known here may be in any view.
		t.everything = true
	}
}

func (t touched) has(n *mesh.VirtualNode) bool {
	if t.everything || n == nil || t.node(n) {
		return true
	}
	return slices.ContainsFunc(n.Backends, func(s *mesh.VirtualService) bool {
		return t.named[objectKey{string(mesh.KindVirtualService), s.Mesh, s.Name}] || t.node(s.Node) || t.router(s.Router)
	})
}

func (t touched) node(n *mesh.VirtualNode) bool {
	return n != nil && t.named[objectKey{string(mesh.KindVirtualNode), n.Mesh, n.Name}]
}

func (t touched) router(r *mesh.VirtualRouter) bool {
	if r == nil {
		return false
	}
	return t.named[objectKey{string(mesh.KindVirtualRouter), r.Mesh, r.Name}] ||
		slices.ContainsFunc(r.Routes, func(route mesh.Route) bool {
			return slices.ContainsFunc(route.Targets, func(to mesh.WeightedTarget) bool { return t.node(to.Node) })
		})
}
