package server

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/mesh"
)

// Signet's own kinds.
const (
	kindNodeGroup    = "NodeGroup"
	kindEntry        = "Entry"
	kindBinding      = "Binding"
	kindJWTIssuer    = "JWTIssuer"
	kindPolicySource = "PolicySource"
)

// objectKey names an object. mesh is empty for Signet's own kinds.
type objectKey struct{ kind, mesh, name string }

func (k objectKey) String() string {
	if k.mesh == "" || k.kind == string(mesh.KindMesh) {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.mesh + "/" + k.name
}

func compareKeys(a, b objectKey) int {
	return cmp.Or(strings.Compare(a.mesh, b.mesh), strings.Compare(a.kind, b.kind), strings.Compare(a.name, b.name))
}

// object is one manifest, understood. It is not changed once it is in a model.
type object struct {
	doc      *manifest.Document
	resource *mesh.Resource // of App Mesh's kinds
	value    any            // identity.Entry, … of Signet's kinds
	own      string         // name, for Signet's kinds
	manifest []byte         // as stored; nil until encoded
	revision uint64         // 0 while it is not stored
	created  uint64         // the revision in which it was first there
}

func (o *object) key() objectKey {
	if o.resource != nil {
		return objectKey{string(o.resource.Kind), o.resource.Mesh, o.resource.Name}
	}
	return objectKey{o.doc.Kind, "", o.own}
}

// encode is the canonical manifest after defaults.
func (o *object) encode() ([]byte, error) {
	if o.manifest != nil {
		return o.manifest, nil
	}
	b, err := o.resource.YAML()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.key(), err)
	}
	o.manifest = b
	return b, nil
}

// errForeign is returned for documents of an API group that is not ours to apply.
var errForeign = errors.New("API group is not known")

// parseObject understands one document of either group.
func parseObject(d *manifest.Document, td spiffeid.TrustDomain) (*object, error) {
	switch d.APIVersion {
	case mesh.GroupVersion:
		r, err := mesh.Parse(d)
		if err != nil {
			return nil, err
		}
		return &object{doc: d, resource: r}, nil
	case mesh.SignetGroupVersion:
		return parseOwn(d, td)
	}
	return nil, errForeign
}

// parseOwn understands Signet's own kinds.
func parseOwn(d *manifest.Document, td spiffeid.TrustDomain) (*object, error) {
	switch d.Kind {
	case kindNodeGroup:
		return decodeOwn(d, td, identity.NodeGroupSpec.Build, nil)
	case kindEntry:
		return decodeOwn(d, td, identity.EntrySpec.Build, nil)
	case kindBinding:
		return decodeOwn(d, td, identity.BindingSpec.Build, nil)
	case kindJWTIssuer:
		return decodeOwn(d, td, identity.JWTIssuerSpec.Build, func(s *identity.JWTIssuerSpec, v identity.JWTIssuer) {
			if v.JWKSURL != "" {
				s.Refresh = v.Refresh.String()
			}
		})
	case kindPolicySource:
		return decodeOwn(d, td, identity.PolicySourceSpec.Build, func(s *identity.PolicySourceSpec, v identity.PolicySource) {
			s.Branch, s.Poll = v.Branch, v.Poll.String()
		})
	}
	return nil, d.FieldError("kind", fmt.Sprintf("%q is not a kind of %s (%s, %s, %s, %s, %s)", plainText(d.Kind),
		mesh.SignetGroupVersion, kindNodeGroup, kindEntry, kindBinding, kindJWTIssuer, kindPolicySource))
}

// ownManifest is how Signet's own kinds are stored and shown.
type ownManifest[S any] struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

type metadata struct {
	Name string `yaml:"name"`
}

func decodeOwn[S, V any](d *manifest.Document, td spiffeid.TrustDomain, build func(S, string, spiffeid.TrustDomain) (V, error), defaults func(*S, V)) (*object, error) {
	var spec S
	if err := d.Decode(&spec); err != nil {
		return nil, err
	}
	v, err := build(spec, d.Name, td)
	if err != nil {
		var all manifest.Errors
		for _, f := range identity.FieldErrors(err) {
			all = append(all, d.FieldError(f.Path, f.Msg))
		}
		all.Sort()
		return nil, all
	}
	if defaults != nil {
		defaults(&spec, v)
	}
	b, err := yaml.Marshal(ownManifest[S]{d.APIVersion, d.Kind, metadata{d.Name}, spec})
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", d.Kind, d.Name, err)
	}
	return &object{doc: d, value: v, own: d.Name, manifest: b}, nil
}

// model is an immutable picture of everything stored, valid as a whole.
type model struct {
	revision uint64
	td       spiffeid.TrustDomain
	objects  map[objectKey]*object
	graph    *mesh.Graph

	groups   map[string]identity.NodeGroup
	entries  []identity.Entry   // by name
	bindings []identity.Binding // by name
	issuers  []identity.JWTIssuer
	sources  []identity.PolicySource
}

// newModel joins the objects and checks them against each other. Every mistake is
// in the error.
func newModel(td spiffeid.TrustDomain, revision uint64, objects []*object) (*model, error) {
	m := &model{revision: revision, td: td, objects: map[objectKey]*object{}, groups: map[string]identity.NodeGroup{}}
	var resources []*mesh.Resource
	for _, o := range objects {
		if o.resource != nil {
			resources = append(resources, o.resource)
		}
	}
	if err := assignMeshes(resources); err != nil {
		return nil, err
	}
	var errs manifest.Errors
	for _, o := range objects {
		k := o.key()
		if m.objects[k] != nil {
			errs = append(errs, manifest.AsErrors(o.doc.FieldError("metadata.name", k.String()+" is given twice"))...)
		}
		m.objects[k] = o
	}
	m.sort()
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

// assignMeshes completes the resources' meshes. Those of a model that is served
// are complete already, and are read meanwhile: they are not written.
func assignMeshes(resources []*mesh.Resource) error {
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

// sort fills the lists of Signet's own kinds, by name.
func (m *model) sort() {
	for _, k := range slices.SortedFunc(maps.Keys(m.objects), compareKeys) {
		switch v := m.objects[k].value.(type) {
		case identity.NodeGroup:
			m.groups[v.Name] = v
		case identity.Entry:
			m.entries = append(m.entries, v)
		case identity.Binding:
			m.bindings = append(m.bindings, v)
		case identity.JWTIssuer:
			m.issuers = append(m.issuers, v)
		case identity.PolicySource:
			m.sources = append(m.sources, v)
		}
	}
}

// check finds references to what is not there, and what cannot stand together.
func (m *model) check() manifest.Errors {
	var errs manifest.Errors
	bad := func(kind, name, field, format string, args ...any) {
		o := m.objects[objectKey{kind: kind, name: name}]
		errs = append(errs, manifest.AsErrors(o.doc.FieldError(field, fmt.Sprintf(format, args...)))...)
	}
	for _, e := range m.entries {
		if _, ok := m.groups[e.Group]; !ok {
			bad(kindEntry, e.Name, "spec.group", "Entry %s names NodeGroup %s, which does not exist", e.Name, e.Group)
		}
	}
	for _, b := range m.bindings {
		if _, ok := m.groups[b.Group]; !ok {
			bad(kindBinding, b.Name, "spec.group", "Binding %s names NodeGroup %s, which does not exist", b.Name, b.Group)
		}
		if m.graph.Node(b.Mesh, b.VirtualNode) == nil {
			bad(kindBinding, b.Name, "spec.virtualNode", "Binding %s grants VirtualNode %s/%s, which does not exist", b.Name, b.Mesh, b.VirtualNode)
		}
	}
	for i, s := range m.sources {
		if i > 0 { // one revision is served to all: two repositories have no order between them
			added, there := m.addedTo(kindPolicySource, m.sources[0].Name, s.Name)
			bad(kindPolicySource, added, "metadata.name", "PolicySource %s is there already, and one is served at a time: delete it first, or put both sets of rules into one repository", there)
		}
	}
	by := map[string]string{}
	for _, i := range m.issuers {
		if other := by[i.Issuer]; other != "" {
			added, there := m.addedTo(kindJWTIssuer, other, i.Name)
			bad(kindJWTIssuer, added, "spec.issuer", "JWTIssuer %s has the same issuer: a token would have two sets of keys", there)
		}
		by[i.Issuer] = i.Name
	}
	return errs
}

// addedTo tells of two objects that cannot be together which one was added: the one
// that is not stored, else the second by name. An error belongs to its place.
func (m *model) addedTo(kind, first, second string) (added, there string) {
	stored := func(name string) bool { return m.objects[objectKey{kind: kind, name: name}].revision > 0 }
	if stored(second) && !stored(first) {
		return first, second
	}
	return second, first
}

// bound reports whether a binding lets agents of the group host the virtual node.
func (m *model) bound(group, mesh, node string) bool {
	return slices.ContainsFunc(m.bindings, func(b identity.Binding) bool {
		return b.Group == group && b.Mesh == mesh && b.VirtualNode == node
	})
}

// managed reports whether any agent may host the virtual node, so that calls to it
// are mTLS even while none of its endpoints is registered.
func (m *model) managed(mesh, node string) bool {
	return slices.ContainsFunc(m.bindings, func(b identity.Binding) bool { return b.Mesh == mesh && b.VirtualNode == node })
}

// all lists the objects, by mesh, kind and name.
func (m *model) all() []*object {
	list := make([]*object, 0, len(m.objects))
	for _, k := range slices.SortedFunc(maps.Keys(m.objects), compareKeys) {
		list = append(list, m.objects[k])
	}
	return list
}

// differ lists the objects that are not the same as in another model, or only
// in one of the two. Objects are not changed once they are in a model.
func (m *model) differ(from *model) []objectKey {
	if m == from {
		return nil
	}
	var list []objectKey
	for k, o := range m.objects {
		if from.objects[k] != o {
			list = append(list, k)
		}
	}
	for k := range from.objects {
		if m.objects[k] == nil {
			list = append(list, k)
		}
	}
	return list
}

// with returns the model that applying these objects and removing those gives.
func (m *model) with(put []*object, remove ...objectKey) (*model, error) {
	replaced := map[objectKey]bool{}
	for _, k := range remove {
		replaced[k] = true
	}
	for _, o := range put {
		replaced[o.key()] = true
	}
	next := slices.Clone(put)
	for _, o := range m.all() {
		if !replaced[o.key()] {
			next = append(next, o)
		}
	}
	return newModel(m.td, m.revision, next)
}

// sortedKeys lists a map's keys in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
