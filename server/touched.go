package server

import (
	"slices"

	"signet.example/mesh"
)

// touched are the virtual nodes whose translation can differ by what an apply
// brings: those it names, and those that reach what it names. The others were
// translated when what they are made of was applied; doing it again would make
// one changed weight cost as much as the whole mesh.
type touched struct {
	everything bool
	named      map[objectKey]bool
}

func touchedBy(objects []*object) touched {
	t := touched{named: map[objectKey]bool{}}
	for _, o := range objects {
		switch k := o.key(); k.kind {
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
	return t
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
