package kinds

import (
	"iter"

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
// there is of theirs and the stored ones.
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
	for i, c := range copies {
		if resources[i].Mesh != c.Mesh {
			resources[i].Mesh = c.Mesh
		}
	}
	return nil
}
