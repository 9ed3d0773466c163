package server

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/attestation/nodes"
	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/policy"
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

// Compare implements ordered.Key.
func (k objectKey) Compare(o objectKey) int {
	return cmp.Or(strings.Compare(k.mesh, o.mesh), strings.Compare(k.kind, o.kind), strings.Compare(k.name, o.name))
}

// object is one manifest, understood. It is not changed once it is in a model.
type object struct {
	doc      *manifest.Document
	resource *mesh.Resource  // of App Mesh's kinds
	value    any             // identity.Entry, … of Signet's kinds
	refused  manifest.Errors // what an apply of it is refused for, though one that is stored is served
	own      string          // name, for Signet's kinds
	manifest []byte          // as stored; nil until encoded
	revision uint64          // 0 while it is not stored
	created  uint64          // the revision in which it was first there
}

func (o *object) key() objectKey {
	if o.resource != nil {
		return objectKey{string(o.resource.Kind), o.resource.Mesh, o.resource.Name}
	}
	return objectKey{o.doc.Kind, "", o.own}
}

// encode is the canonical manifest after defaults.
func (o *object) encode() []byte {
	if o.manifest == nil {
		o.manifest = o.resource.Encode()
	}
	return o.manifest
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
		return decodeOwn(d, td, nodes.BuildGroup, nil, nil)
	case kindEntry:
		return decodeOwn(d, td, identity.EntrySpec.Build, nil, nil)
	case kindBinding:
		return decodeOwn(d, td, identity.BindingSpec.Build, nil, nil)
	case kindJWTIssuer:
		return decodeOwn(d, td, anywhere(jwt.IssuerSpec.Build), jwt.IssuerSpec.Check, func(s *jwt.IssuerSpec, v jwt.Issuer) {
			if v.JWKSURL != "" {
				s.Refresh = v.Refresh.String()
			}
		})
	case kindPolicySource:
		return decodeOwn(d, td, anywhere(policy.SourceSpec.Build), policy.SourceSpec.Check, func(s *policy.SourceSpec, v policy.Source) {
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

// anywhere is the Build of a spec in which no name depends on the trust domain.
func anywhere[S, V any](build func(S, string) (V, error)) func(S, string, spiffeid.TrustDomain) (V, error) {
	return func(s S, name string, _ spiffeid.TrustDomain) (V, error) { return build(s, name) }
}

func decodeOwn[S, V any](d *manifest.Document, td spiffeid.TrustDomain, build func(S, string, spiffeid.TrustDomain) (V, error), check func(S) error, defaults func(*S, V)) (*object, error) {
	var spec S
	if err := d.Decode(&spec); err != nil {
		return nil, err
	}
	var refused manifest.Errors
	if check != nil {
		refused = placed(d, check(spec))
	}
	v, err := build(spec, d.Name, td)
	if err != nil {
		all := append(placed(d, err), refused...)
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
	return &object{doc: d, value: v, refused: refused, own: d.Name, manifest: b}, nil
}

// placed are the faults of a spec at their places in the document.
func placed(d *manifest.Document, err error) manifest.Errors {
	var all manifest.Errors
	for _, f := range identity.FieldErrors(err) {
		all = append(all, d.FieldError(f.Path, f.Msg))
	}
	return all
}

// model is an immutable picture of everything stored, valid as a whole. Another one
// that came from it shares what has not changed.
type model struct {
	revision uint64
	td       spiffeid.TrustDomain
	objects  ordered.Map[objectKey, *object]
	graph    *mesh.Graph

	hanging ordered.Map[ordered.String, *group]                  // by NodeGroup: Entries and Bindings
	hosts   ordered.Map[nodeRef, ordered.Map[hostRef, struct{}]] // which groups may host a virtual node
	issuers []jwt.Issuer
	sources []policy.Source
	// selecting are the NodeGroups that hosts are in by their selectors.
	selecting []identity.NodeGroup
}

// hostRef is a Binding by which a group may host a virtual node.
type hostRef struct{ group, binding string }

// Compare implements ordered.Key.
func (h hostRef) Compare(o hostRef) int {
	return cmp.Or(strings.Compare(h.group, o.group), strings.Compare(h.binding, o.binding))
}

// newModel joins the objects and checks them against each other. Every mistake is
// in the error.
func newModel(td spiffeid.TrustDomain, revision uint64, objects []*object) (*model, error) {
	m := &model{revision: revision, td: td}
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
		if m.objects.Get(k) != nil {
			errs = append(errs, manifest.AsErrors(o.doc.FieldError("metadata.name", k.String()+" is given twice"))...)
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
func (m *model) put(k objectKey, o *object) error {
	if old := m.objects.Get(k); old != nil {
		if err := m.hang(old, (*group).without, ordered.Map[hostRef, struct{}].Without); err != nil {
			return err
		}
	}
	if o == nil {
		m.objects = m.objects.Without(k)
		return nil
	}
	m.objects = m.objects.With(k, o)
	return m.hang(o, (*group).with, func(hosts ordered.Map[hostRef, struct{}], h hostRef) ordered.Map[hostRef, struct{}] {
		return hosts.With(h, struct{}{})
	})
}

// hang changes what hangs on a group, and who may host a node, by an Entry or Binding.
func (m *model) hang(o *object, change func(*group, *grant) *group, host func(ordered.Map[hostRef, struct{}], hostRef) ordered.Map[hostRef, struct{}]) error {
	g, err := newGrant(o, m.td)
	if g == nil || err != nil {
		return err
	}
	if next := change(m.group(g.entry.Group), g); next.grants.Empty() {
		m.hanging = m.hanging.Without(g.inGroup())
	} else {
		m.hanging = m.hanging.With(g.inGroup(), next)
	}
	if b := g.binding; b != nil {
		at := nodeRef{b.Mesh, b.VirtualNode}
		if next := host(m.hosts.Get(at), hostRef{b.Group, b.Name}); next.Empty() {
			m.hosts = m.hosts.Without(at)
		} else {
			m.hosts = m.hosts.With(at, next)
		}
	}
	return nil
}

// list fills the lists of the kinds of which there are few, by name.
func (m *model) list() {
	m.issuers = slices.Collect(ofKind[jwt.Issuer](m, kindJWTIssuer))
	m.sources = slices.Collect(ofKind[policy.Source](m, kindPolicySource))
	m.selecting = nil
	for g := range ofKind[identity.NodeGroup](m, kindNodeGroup) {
		if len(g.Selectors) > 0 {
			m.selecting = append(m.selecting, g)
		}
	}
}

// ofKind lists the objects of one of Signet's own kinds, by name.
func ofKind[V any](m *model, kind string) iter.Seq[V] {
	return func(yield func(V) bool) {
		for k, o := range m.objects.From(objectKey{kind: kind}) {
			if k.kind != kind || k.mesh != "" || !yield(o.value.(V)) {
				return
			}
		}
	}
}

// group is what hangs on a NodeGroup; an empty one for none.
func (m *model) group(name string) *group {
	if g := m.hanging.Get(ordered.String(name)); g != nil {
		return g
	}
	return &group{}
}

func (m *model) hasGroup(name string) bool {
	return m.objects.Get(objectKey{kind: kindNodeGroup, name: name}) != nil
}

// resources are those of objects, and the meshes beside them.
func (m *model) resources(objects []*object) []*mesh.Resource {
	var list []*mesh.Resource
	meshes := map[string]bool{}
	for _, o := range objects {
		if o.resource != nil {
			list = append(list, o.resource)
			if o.resource.Kind == mesh.KindMesh {
				meshes[o.resource.Mesh] = true
			}
		}
	}
	for _, name := range m.graph.Meshes() {
		if !meshes[name] {
			list = append(list, m.objects.Get(objectKey{string(mesh.KindMesh), name, name}).resource)
		}
	}
	return list
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

// check finds references to what is not there, and what cannot stand together.
func (m *model) check() manifest.Errors {
	var errs manifest.Errors
	bad := func(kind, name, field, format string, args ...any) {
		o := m.objects.Get(objectKey{kind: kind, name: name})
		errs = append(errs, manifest.AsErrors(o.doc.FieldError(field, fmt.Sprintf(format, args...)))...)
	}
	for e := range ofKind[identity.Entry](m, kindEntry) {
		if !m.hasGroup(e.Group) {
			bad(kindEntry, e.Name, "spec.group", "Entry %s names NodeGroup %s, which does not exist", e.Name, e.Group)
		}
	}
	for b := range ofKind[identity.Binding](m, kindBinding) {
		if !m.hasGroup(b.Group) {
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
	stored := func(name string) bool { return m.objects.Get(objectKey{kind: kind, name: name}).revision > 0 }
	if stored(second) && !stored(first) {
		return first, second
	}
	return second, first
}

// bound reports whether a binding lets agents of the group host the virtual node.
func (m *model) bound(group, mesh, node string) bool {
	for h := range m.hosts.Get(nodeRef{mesh, node}).From(hostRef{group: group}) {
		return h.group == group
	}
	return false
}

// managed reports whether any agent may host the virtual node, so that calls to it
// are mTLS even while none of its endpoints is registered.
func (m *model) managed(mesh, node string) bool { return !m.hosts.Get(nodeRef{mesh, node}).Empty() }

// all lists the objects, by mesh, kind and name.
func (m *model) all() []*object {
	var list []*object
	for _, o := range m.objects.All() {
		list = append(list, o)
	}
	return list
}

// differ lists the objects that are not the same as in another model, or only
// in one of the two. Objects are not changed once they are in a model.
func (m *model) differ(from *model) []objectKey {
	return slices.Collect(m.objects.Differ(from.objects))
}

// with returns the model that applying these objects and removing those gives.
func (m *model) with(put []*object, remove ...objectKey) (*model, error) {
	if next := m.patched(put, remove, nil); next != nil {
		return next, nil
	}
	replaced := map[objectKey]bool{}
	for _, k := range remove {
		replaced[k] = true
	}
	for _, o := range put {
		replaced[o.key()] = true
	}
	next := slices.Clone(put)
	for k, o := range m.objects.All() {
		if !replaced[k] {
			next = append(next, o)
		}
	}
	return newModel(m.td, m.revision, next)
}

// sortedKeys lists a map's keys in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
