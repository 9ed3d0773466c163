package server

import (
	"bytes"

	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/policy"
)

// patched is with at the price of what changes: what is put and removed is checked
// against the rest, and the rest is not looked at. It does not say what is wrong:
// where anything is, or a mesh itself changes, it returns nil, and newModel of
// everything tells. graph, if any, is what the change makes of the graph.
func (m *model) patched(put []*object, remove []objectKey, graph *mesh.Graph) *model {
	c := &patch{model: *m, from: m, seen: map[objectKey]bool{}}
	if assignMeshes(m.resources(put)) != nil {
		return nil
	}
	for _, k := range remove {
		if m.objects.Get(k) != nil && !c.change(k, nil) {
			return nil
		}
	}
	for _, o := range put {
		if k := o.key(); !o.sameAs(m.objects.Get(k)) && !c.change(k, o) {
			return nil
		}
	}
	if c.listed {
		c.list()
	}
	if graph != nil {
		c.graph = graph
	} else if len(c.put)+len(c.gone) > 0 {
		var ok bool
		if c.graph, ok = m.graph.With(c.put, c.gone); !ok {
			return nil
		}
	}
	for k := range c.seen {
		if !c.stands(k) {
			return nil
		}
	}
	made := c.model // a copy of its own: a pointer into c would keep from, and what that was made of
	return &made
}

// sameAs reports whether an object that is not stored yet is what is stored.
func (o *object) sameAs(old *object) bool {
	if old == nil || o.revision > 0 {
		return o == old
	}
	return bytes.Equal(o.encode(), old.encode())
}

// patch is a model that is being made of another one.
type patch struct {
	model
	from   *model
	seen   map[objectKey]bool // what is changed
	listed bool               // of one of the kinds that are listed
	put    []*mesh.Resource
	gone   []mesh.Name
}

// change makes o, nil for nothing, the object of the key.
func (c *patch) change(k objectKey, o *object) bool {
	if c.seen[k] {
		return false // it is given twice
	}
	c.seen[k] = true
	c.listed = c.listed || k.kind == kindJWTIssuer || k.kind == kindPolicySource || k.kind == kindNodeGroup
	switch {
	case o != nil && o.resource != nil:
		c.put = append(c.put, o.resource)
	case c.from.objects.Get(k) != nil && c.from.objects.Get(k).resource != nil:
		c.gone = append(c.gone, mesh.NameOf(mesh.Kind(k.kind), k.mesh, k.name))
	}
	return c.model.put(k, o) == nil
}

// stands reports whether what changed can stand with the rest, as check does of everything.
func (c *patch) stands(k objectKey) bool {
	o := c.objects.Get(k)
	if o == nil {
		switch k.kind {
		case kindNodeGroup:
			return c.hanging.Get(ordered.String(k.name)) == nil
		case string(mesh.KindVirtualNode):
			return !c.managed(k.mesh, k.name)
		}
		return true
	}
	switch v := o.value.(type) {
	case identity.Entry:
		return c.hasGroup(v.Group)
	case identity.Binding:
		return c.hasGroup(v.Group) && c.graph.Node(v.Mesh, v.VirtualNode) != nil
	case policy.Source:
		return len(c.sources) == 1
	case jwt.Issuer:
		n := 0
		for _, is := range c.issuers {
			if is.Issuer == v.Issuer {
				n++
			}
		}
		return n == 1
	}
	return true
}
