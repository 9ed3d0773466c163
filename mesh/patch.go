package mesh

import "slices"

// With returns the graph in which resources are new or in the place of those of the
// same names, and others are gone. It makes anew what is put, and what refers to
// something of which more than the name has changed for it; all else is shared with g.
//
// It does not say what is wrong: where anything is, or a mesh itself or its options change, ok is
// false, and NewGraph of everything tells.
func (g *Graph) With(put []*Resource, remove []Name) (next *Graph, ok bool) {
	mine, ok := g.assigned(put)
	if !ok || slices.ContainsFunc(remove, func(n Name) bool { return n.Kind.Wide() }) {
		return nil, false
	}
	made := *g
	b := &builder{graph: &made, found: map[Name][]Name{}}
	again := map[Name]bool{}
	gone := slices.Clone(remove)
	for _, r := range mine {
		gone = append(gone, r.graphName())
	}
	for _, name := range gone {
		if old := g.named.Get(name); old != nil {
			b.remove(old)
		}
	}
	b.build(mine)
	for _, name := range gone {
		if !sameToOthers(g.named.Get(name), made.named.Get(name)) {
			for from := range g.referrers.Get(name).All() {
				again[from] = true
			}
		}
	}
	for _, name := range gone {
		delete(again, name) // it is made already, or it is gone
	}
	var referring []*Resource
	made.behindGateways(g, again, gone)
	for name := range again {
		r := made.named.Get(name)
		b.unlink(name)
		referring = append(referring, r)
	}
	b.resolve(referring)
	if len(b.errs) > 0 {
		return nil, false
	}
	b.forgetPlaces(mine)
	return &made, true
}

// assigned are copies of resources whose mesh is complete.
func (g *Graph) assigned(put []*Resource) ([]*Resource, bool) {
	mine := copies(put)
	if slices.ContainsFunc(mine, func(r *Resource) bool { return r.Kind.Wide() }) {
		return nil, false
	}
	all := slices.Clone(mine)
	for _, m := range g.meshes.All() {
		all = append(all, m.resource)
	}
	return mine, AssignMeshes(all) == nil
}

// sameToOthers reports whether those who refer to an object see no difference between
// two versions of it: its names, and what its kind says, are all that they look at.
func sameToOthers(old, now *Resource) bool {
	if old == nil || now == nil || !old.SameObject(now) || old.Name != now.Name {
		return false
	}
	s, ok := now.Spec.(spec)
	return ok && s.sameToOthers(old.Spec)
}

// remove takes an object out of the graph. What refers to it is not looked at.
func (b *builder) remove(r *Resource) {
	g, name := b.graph, r.graphName()
	b.unlink(name)
	b.unaddress(name)
	b.unnamesake(g.nodes.Get(name))
	g.objects, g.named = g.objects.Without(r.objectKey()), g.named.Without(name)
	g.nodes, g.routers, g.services, g.gatewayRoutes = g.nodes.Without(name), g.routers.Without(name), g.services.Without(name), g.gatewayRoutes.Without(name)
}

// unlink forgets what an object refers to.
func (b *builder) unlink(from Name) {
	g := b.graph
	if refers := g.refers.Get(from); refers != nil {
		for _, to := range refers.to {
			rest := g.referrers.Get(to).Without(from)
			if g.referrers = g.referrers.With(to, rest); rest.Empty() {
				g.referrers = g.referrers.Without(to)
			}
		}
		g.refers = g.refers.Without(from)
	}
}
