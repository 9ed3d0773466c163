package model

import (
	"fmt"
	"iter"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/policy/repo"
	"signet.example/server/groups"
	"signet.example/server/kinds"
)

// Model is everything that is stored, at one revision, valid as a whole. It is immutable:
// what makes another one of it shares what has not changed.
type Model struct {
	revision uint64
	td       spiffeid.TrustDomain
	objects  ordered.Map[kinds.Key, *kinds.Object]
	graph    *mesh.Graph

	groups  groups.Groups // of Entries, Bindings and NodeGroups
	issuers []jwt.Issuer
	sources []repo.Source
}

// Revision is that of the store which the model is of.
func (m *Model) Revision() uint64 { return m.revision }

// Objects are all that are stored.
func (m *Model) Objects() ordered.Map[kinds.Key, *kinds.Object] { return m.objects }

// Graph is that of the objects of App Mesh's kinds.
func (m *Model) Graph() *mesh.Graph { return m.graph }

// Groups is what NodeGroups decide, with the Entries and Bindings that hang on them.
func (m *Model) Groups() groups.Groups { return m.groups }

// Issuers are the JWTIssuers, by name, and then the ALBIssuers. The list is not to be changed.
func (m *Model) Issuers() []jwt.Issuer { return m.issuers }

// Sources are the PolicySources, by name. The list is not to be changed.
func (m *Model) Sources() []repo.Source { return m.sources }

// HasGroup reports whether there is a NodeGroup of this name.
func (m *Model) HasGroup(name string) bool {
	return m.objects.Get(kinds.Key{Kind: kinds.NodeGroup, Name: name}) != nil
}

// newModel joins the objects and checks them against each other. Every mistake is
// in the error.
func newModel(td spiffeid.TrustDomain, revision uint64, objects []*kinds.Object) (*Model, error) {
	m := &Model{revision: revision, td: td}
	var resources []*mesh.Resource
	for _, o := range objects {
		if o.Resource != nil {
			resources = append(resources, o.Resource)
		}
	}
	if err := kinds.AssignMeshes(objects); err != nil {
		return nil, err
	}
	var errs manifest.Errors
	for _, o := range objects {
		k := o.Key()
		if m.objects.Get(k) != nil {
			errs = append(errs, manifest.AsErrors(o.Doc.FieldError("metadata.name", k.String()+" is given twice"))...)
		}
		if err := m.put(k, o); err != nil {
			return nil, err
		}
	}
	m.list()
	graph, err := mesh.NewGraph(resources)
	if err != nil {
		return nil, append(errs, manifest.AsErrors(err)...)
	}
	m.graph = graph
	if errs = append(errs, m.check()...); len(errs) > 0 {
		return nil, errs
	}
	return m, nil
}

// put has o, nil for nothing, in the place of what is there. The model is not
// anybody's yet, and its graph and lists are behind.
func (m *Model) put(k kinds.Key, o *kinds.Object) error {
	if old := m.objects.Get(k); old != nil {
		grants, err := m.granted(old)
		if err != nil {
			return err
		}
		m.groups = m.groups.Without(grants)
	}
	if o == nil {
		m.objects = m.objects.Without(k)
		return nil
	}
	m.objects = m.objects.With(k, o)
	grants, err := m.granted(o)
	m.groups = m.groups.With(grants)
	return err
}

// granted is what an object grants, nil for nothing.
func (m *Model) granted(o *kinds.Object) (*groups.Grant, error) {
	return groups.NewGrant(o.Value, o.Created, m.td)
}

// list fills the lists of the kinds of which there are few, by name.
func (m *Model) list() {
	m.issuers = slices.Concat(slices.Collect(values[jwt.Issuer](m, kinds.JWTIssuer)), slices.Collect(values[jwt.Issuer](m, kinds.ALBIssuer)))
	m.sources = slices.Collect(values[repo.Source](m, kinds.PolicySource))
	m.groups = m.groups.Placed(values[identity.NodeGroup](m, kinds.NodeGroup))
}

// values is what the objects of one of Signet's own kinds mean.
func values[V any](m *Model, kind string) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, o := range kinds.Of(m.objects, kind) {
			if !yield(o.Value.(V)) {
				return
			}
		}
	}
}

// check finds references to what is not there, and what cannot stand together.
func (m *Model) check() manifest.Errors {
	var errs manifest.Errors
	bad := func(o *kinds.Object, field, msg string) {
		errs = append(errs, manifest.AsErrors(o.Doc.FieldError(field, msg))...)
	}
	for _, kind := range kinds.All() {
		first := map[string]string{} // by what is single
		for k, o := range kinds.Of(m.objects, kind.Name) {
			for _, to := range o.Refers() {
				if m.objects.Get(to.To) == nil {
					errs = append(errs, o.Doc.DanglingError(to.Field, fmt.Sprintf("%s %s %s", k, to.Verb, to.To), m.meant(to.To, len(errs))))
				}
			}
			if kind.Single == nil {
				continue
			}
			of := kind.Single.Of(o.Value)
			if other, taken := first[of]; taken {
				added, there := m.addedTo(kind.Name, other, k.Name)
				bad(m.objects.Get(kinds.Key{Kind: kind.Name, Name: added}), kind.Single.Field, kind.Single.Clash(there))
			} else {
				first[of] = k.Name
			}
		}
	}
	return errs
}

// meant is [kinds.Meant] for the first mistakes: each is looked for among all objects of its kind.
func (m *Model) meant(k kinds.Key, mistakes int) string {
	if mistakes >= manifest.MaxErrors {
		return ""
	}
	return kinds.Meant(m.objects, k)
}

// addedTo returns which of two objects that cannot be together was added: the one
// that is not stored, else the second by name. An error belongs to its place.
func (m *Model) addedTo(kind, first, second string) (added, there string) {
	stored := func(name string) bool { return m.objects.Get(kinds.Key{Kind: kind, Name: name}).Revision > 0 }
	if stored(second) && !stored(first) {
		return first, second
	}
	return second, first
}
