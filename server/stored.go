package server

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/store"
)

// loadModel reads what the store has.
func loadModel(td spiffeid.TrustDomain, rows []store.Object, revision uint64) (*model, error) {
	objects := make([]*object, 0, len(rows))
	for _, row := range rows {
		o, err := parseStored(row, td)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return newModel(td, revision, objects)
}

// written returns the model that the store will have when it has taken these
// writes as the next revision: what is written is read back from its manifest.
// graph is that of the checked model, whose specs are those of the manifests.
func (m *model) written(writes []store.Write, graph *mesh.Graph) (*model, error) {
	next := &model{
		revision: m.revision + 1, td: m.td, objects: maps.Clone(m.objects), graph: graph,
		groups: map[string]identity.NodeGroup{},
	}
	for _, w := range writes {
		k := objectKey{w.Kind, w.Mesh, w.Name}
		if w.Delete {
			delete(next.objects, k)
			continue
		}
		w.Revision, w.Created = next.revision, createdIn(m.objects, k, next.revision)
		o, err := parseStored(w.Object, m.td)
		if err != nil {
			return nil, err
		}
		next.objects[k] = o
	}
	next.sort()
	return next, nil
}

// follow returns the model after changes that others than written foresaw.
func (m *model) follow(changes []store.Change) (*model, error) {
	next := *m
	objects := maps.Clone(m.objects)
	for _, c := range changes {
		next.revision = c.Revision
		k := objectKey{c.Kind, c.Mesh, c.Name}
		switch {
		case !isObject(c.Kind):
		case c.Deleted:
			delete(objects, k)
		default:
			created := createdIn(objects, k, c.Revision) // it may have been deleted just before
			o, err := parseStored(store.Object{Kind: c.Kind, Mesh: c.Mesh, Name: c.Name, Manifest: c.Manifest, Revision: c.Revision, Created: created}, m.td)
			if err != nil {
				return nil, err
			}
			objects[k] = o
		}
	}
	if !slices.ContainsFunc(changes, func(c store.Change) bool { return isObject(c.Kind) }) {
		return &next, nil
	}
	next.objects = objects
	return newModel(m.td, next.revision, next.all())
}

// createdIn is the revision in which an object was first there, now if it was not.
func createdIn(objects map[objectKey]*object, k objectKey, now uint64) uint64 {
	if old := objects[k]; old != nil {
		return old.created
	}
	return now
}

// isObject tells objects from the other things that have changes.
func isObject(kind string) bool {
	return !slices.Contains([]string{store.KindAgent, store.KindBan, store.KindPolicyRevision}, kind)
}

func parseStored(row store.Object, td spiffeid.TrustDomain) (_ *object, err error) {
	k := objectKey{row.Kind, row.Mesh, row.Name}
	defer func() {
		if err != nil {
			err = fmt.Errorf("stored %s: %w", k, err)
		}
	}()
	docs, err := mesh.Split("store", row.Manifest)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("%d documents in one row", len(docs))
	}
	o, err := parseObject(docs[0], td)
	if err != nil {
		return nil, err
	}
	if o.resource != nil {
		o.resource.Mesh = row.Mesh
	}
	if o.key() != k {
		return nil, fmt.Errorf("it reads back as %s", o.key())
	}
	o.manifest, o.revision, o.created = row.Manifest, row.Revision, row.Created
	return o, nil
}
