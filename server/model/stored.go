package model

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/ordered"
	"signet.example/internal/parallel"
	"signet.example/server/kinds"
	"signet.example/store"
)

// Load is the model of what the store has at a revision.
func Load(td spiffeid.TrustDomain, rows []store.Object, revision uint64) (*Model, error) {
	objects, err := parseAll(rows, td)
	if err != nil {
		return nil, err
	}
	if kinds.AssignMeshes(objects) == nil { // else newModel tells
		kinds.AssignGateways(objects, ordered.Map[kinds.Key, *kinds.Object]{})
	}
	return newModel(td, revision, objects)
}

// Written returns the model that the store will have when it has taken these
// writes as the next revision: what is written is read back from its manifest, and
// must be what was checked, whose graph serves then.
func (m *Model) Written(writes []store.Write, checked *Model) (*Model, error) {
	var rows []store.Object
	var remove []kinds.Key
	for _, w := range writes {
		k := kinds.Key{Kind: w.Kind, Mesh: w.Mesh, Name: w.Name}
		if w.Delete {
			remove = append(remove, k)
			continue
		}
		w.Revision, w.Created = m.revision+1, createdIn(m, k, m.revision+1)
		rows = append(rows, w.Object)
	}
	put, err := parseAll(rows, m.td)
	if err != nil {
		return nil, err
	}
	for _, o := range put {
		k := o.Key()
		if o.Resource != nil && !reflect.DeepEqual(o.Resource.Spec, checked.objects.Get(k).Resource.Spec) {
			return nil, fmt.Errorf("encode %s: it reads back as another value", k)
		}
	}
	next := m.patched(put, remove, checked.graph)
	if next == nil {
		return nil, errors.New("what is written does not read back as what was checked")
	}
	next.revision = m.revision + 1
	return next, nil
}

// Follow returns the model after changes that Written did not foresee, in the order of
// the store.
func (m *Model) Follow(changes []store.Change) (*Model, error) {
	after := *m // its graph and lists are those of m still
	for _, c := range changes {
		after.revision = c.Revision
		k := kinds.Key{Kind: c.Kind, Mesh: c.Mesh, Name: c.Name}
		switch {
		case !isObject(c.Kind):
		case c.Deleted:
			after.objects = after.objects.Without(k)
		default:
			created := createdIn(&after, k, c.Revision) // it may have been deleted just before
			o, err := parseStored(store.Object{Kind: c.Kind, Mesh: c.Mesh, Name: c.Name, Manifest: c.Manifest, Owner: c.Owner, Revision: c.Revision, Created: created}, m.td)
			if err != nil {
				return nil, err
			}
			after.objects = after.objects.With(k, o)
		}
	}
	var put []*kinds.Object
	var remove []kinds.Key
	for k := range after.objects.Differ(m.objects) {
		if o := after.objects.Get(k); o != nil {
			put = append(put, o)
		} else {
			remove = append(remove, k)
		}
	}
	next, err := m.With(put, remove...)
	if err != nil {
		return nil, err
	}
	next.revision = after.revision
	return next, nil
}

// createdIn is the revision in which an object was first there, now if it was not.
func createdIn(m *Model, k kinds.Key, now uint64) uint64 {
	if old := m.objects.Get(k); old != nil {
		return old.Created
	}
	return now
}

// isObject reports whether a kind is one of objects: agents, bans and policy revisions
// have changes, too.
func isObject(kind string) bool {
	return !slices.Contains([]string{store.KindAgent, store.KindBan, store.KindPolicyRevision}, kind)
}

// parseAll is parseStored of all rows, side by side: there may be all of a mesh.
func parseAll(rows []store.Object, td spiffeid.TrustDomain) ([]*kinds.Object, error) {
	objects, errs := make([]*kinds.Object, len(rows)), make([]error, len(rows))
	parallel.Each(len(rows), func(i int) { objects[i], errs[i] = parseStored(rows[i], td) })
	return objects, cmp.Or(errs...)
}

func parseStored(row store.Object, td spiffeid.TrustDomain) (*kinds.Object, error) {
	o, err := kinds.ReadBack(kinds.Key{Kind: row.Kind, Mesh: row.Mesh, Name: row.Name}, row.Manifest, td)
	if err != nil {
		return nil, err
	}
	o.Revision, o.Created, o.Owner = row.Revision, row.Created, row.Owner
	return o, nil
}
