package kinds

import (
	"iter"
	"maps"
	"slices"

	"signet.example/internal/ordered"
	"signet.example/mesh"
)

// Of lists the objects of one of Signet's own kinds, by name.
func Of(all ordered.Map[Key, *Object], kind string) iter.Seq2[Key, *Object] {
	return func(yield func(Key, *Object) bool) {
		for k, o := range all.From(Key{Kind: kind}) {
			if k.Kind != kind || k.Mesh != "" || !yield(k, o) {
				return
			}
		}
	}
}

// Meshes are the meshes of a graph, as they are stored.
func Meshes(g *mesh.Graph, all ordered.Map[Key, *Object]) []*mesh.Resource {
	var list []*mesh.Resource
	for _, name := range g.Meshes() {
		list = append(list, all.Get(Mesh(name)).Resource)
	}
	return list
}

// AssignMeshes completes the meshes of objects: what each names, or the only one that
// there is of theirs and the stored ones. Each says it then: an object is stored as it was
// understood, so that it stays what it is when there is a second mesh. Only those that say
// none are written to; objects that are shared say theirs.
func AssignMeshes(objects []*Object, stored ...*mesh.Resource) error {
	var resources []*mesh.Resource
	meshes := map[string]bool{}
	for _, o := range objects {
		if o.Resource != nil {
			resources = append(resources, o.Resource)
			if o.Resource.Kind == mesh.KindMesh {
				meshes[o.Resource.Mesh] = true
			}
		}
	}
	for _, r := range stored {
		if !meshes[r.Mesh] {
			resources = append(resources, r)
		}
	}
	// Those of a model that is served are complete already, and are read meanwhile: they
	// are not written.
	copies := make([]*mesh.Resource, len(resources))
	for i, r := range resources {
		c := *r
		copies[i] = &c
	}
	if err := mesh.AssignMeshes(copies); err != nil {
		return err
	}
	called := map[string]string{} // metadata.name of meshes: no two have one
	for i, c := range copies {
		if resources[i].Mesh != c.Mesh {
			resources[i].Mesh = c.Mesh
		}
		if c.Kind == mesh.KindMesh {
			called[c.Mesh] = c.ObjectName
		}
	}
	for _, o := range objects {
		if r := o.Resource; r != nil && !r.NamesMesh() {
			of := r.Mesh
			r.JoinMesh(called[of])
			r.Mesh = of
			o.rewritten()
		}
	}
	return nil
}

// AssignGateways has each route of a gateway among the objects say which, where it says none
// and there is only one that it can be. rest are all other objects that there will be; the
// objects must not be shared yet.
func AssignGateways(objects []*Object, rest ordered.Map[Key, *Object], gone ...Key) {
	var routes []*Object
	for _, o := range objects {
		if o.Resource != nil && o.Resource.Kind == mesh.KindGatewayRoute && !o.Resource.NamesGateway() {
			routes = append(routes, o)
		}
	}
	if len(routes) == 0 {
		return
	}
	gateways := map[string]map[Key]*mesh.Resource{} // by mesh
	for _, o := range routes {
		in := o.Resource.Mesh
		if gateways[in] != nil {
			continue
		}
		all := map[Key]*mesh.Resource{}
		first := Key{Kind: string(mesh.KindVirtualGateway), Mesh: in}
		for k, g := range rest.From(first) {
			if k.Mesh != first.Mesh || k.Kind != first.Kind {
				break
			}
			all[k] = g.Resource
		}
		gateways[in] = all
	}
	for _, k := range gone {
		delete(gateways[k.Mesh], k)
	}
	for _, o := range objects {
		if k := o.Key(); k.Kind == string(mesh.KindVirtualGateway) && gateways[k.Mesh] != nil {
			gateways[k.Mesh][k] = o.Resource
		}
	}
	for _, o := range routes {
		if o.Resource.JoinGateway(slices.Collect(maps.Values(gateways[o.Resource.Mesh]))) {
			o.rewritten()
		}
	}
}

// rewritten is called where what an object says was completed.
func (o *Object) rewritten() {
	if o.manifest != nil {
		o.manifest = o.Resource.Encode()
	}
}
