package model

import (
	"slices"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/kinds"
)

// With returns the model that applying these objects and removing those gives. Everything
// that is wrong with it is in the error, each mistake at its place in a manifest.
func (m *Model) With(put []*kinds.Object, remove ...kinds.Key) (*Model, error) {
	if kinds.AssignMeshes(put, kinds.Meshes(m.graph, m.objects)...) == nil { // else newModel tells
		kinds.AssignGateways(put, m.objects, remove...)
	}
	if next := m.patched(put, remove, nil); next != nil {
		return next, nil
	}
	replaced := map[kinds.Key]bool{}
	for _, k := range remove {
		replaced[k] = true
	}
	for _, o := range put {
		replaced[o.Key()] = true
	}
	next := slices.Clone(put)
	for k, o := range m.objects.All() {
		if !replaced[k] {
			next = append(next, o)
		}
	}
	return newModel(m.td, m.revision, next)
}

// patched is With at the price of what changes: what is put and removed is checked
// against the rest, and the rest is not looked at. It does not say what is wrong:
// where anything is, or a mesh itself changes, it returns nil, and newModel of
// everything tells. graph, if any, is what the change makes of the graph.
func (m *Model) patched(put []*kinds.Object, remove []kinds.Key, graph *mesh.Graph) *Model {
	made := *m
	c := &patch{made: &made, from: m, seen: map[kinds.Key]bool{}}
	if kinds.AssignMeshes(put, kinds.Meshes(m.graph, m.objects)...) != nil {
		return nil
	}
	for _, k := range remove {
		if m.objects.Get(k) != nil && !c.change(k, nil) {
			return nil
		}
	}
	for _, o := range put {
		if k := o.Key(); !o.SameAs(m.objects.Get(k)) && !c.change(k, o) {
			return nil
		}
	}
	if c.listed {
		made.list()
	}
	if graph != nil {
		made.graph = graph
	} else if len(c.put)+len(c.gone) > 0 {
		var ok bool
		if made.graph, ok = m.graph.With(c.put, c.gone); !ok {
			return nil
		}
	}
	for k := range c.seen {
		if !c.stands(k) {
			return nil
		}
	}
	return &made // a copy of its own: a pointer into c would keep from, and what that was made of
}

// patch is a model that is being made of another one.
type patch struct {
	made   *Model
	from   *Model
	seen   map[kinds.Key]bool // what is changed
	listed bool               // of one of the kinds that are listed
	put    []*mesh.Resource
	gone   []mesh.Name
}

// change makes o, nil for nothing, the object of the key.
func (c *patch) change(k kinds.Key, o *kinds.Object) bool {
	if c.seen[k] {
		return false // it is given twice
	}
	c.seen[k] = true
	c.listed = c.listed || k.Row().Listed
	switch {
	case o != nil && o.Resource != nil:
		c.put = append(c.put, o.Resource)
	case c.from.objects.Get(k) != nil && c.from.objects.Get(k).Resource != nil:
		c.gone = append(c.gone, mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name))
	}
	return c.made.put(k, o) == nil
}

// stands reports whether what changed can stand with the rest, as check does of everything.
func (c *patch) stands(k kinds.Key) bool {
	o := c.made.objects.Get(k)
	if o == nil {
		switch k.Kind {
		case kinds.NodeGroup:
			return c.made.groups.Granted.Group(k.Name) == nil
		case string(mesh.KindVirtualNode), string(mesh.KindVirtualGateway):
			return !c.made.groups.Hosts.Any(proxy.For(k.Mesh, k.Name, k.Kind == string(mesh.KindVirtualGateway)))
		}
		return true
	}
	for _, to := range o.Refers() {
		if c.made.objects.Get(to.To) == nil {
			return false
		}
	}
	single := k.Row().Single
	if single == nil {
		return true
	}
	n := 0
	for _, other := range kinds.Of(c.made.objects, k.Kind) {
		if single.Of(other.Value) == single.Of(o.Value) {
			n++
		}
	}
	return n == 1
}
