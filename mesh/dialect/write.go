package dialect

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"signet.example/mesh"
)

// Written is an object in the API's structure, in a form's spelling.
type Written struct {
	Kind mesh.Kind
	// Name, Mesh and Parent, the router of a route and the gateway of a gateway route, are
	// App Mesh's names.
	Name, Mesh, Parent string
	Spec               Members
}

// Members are those of a mapping, in order. A value is Members, a []any, a string, a
// number, a bool, or a Name.
type Members []Pair

// Pair is one of them.
type Pair struct {
	Name  string
	Value any
}

// Name is a reference to an object by its App Mesh name.
type Name struct {
	Kind       mesh.Kind
	Mesh, Name string
	// Loose: what it names need not be there first, as a backend.
	Loose bool
}

// Write gives resources the API's structure, referents before what refers to them, and
// lists what that cannot say. Routes become objects of their own.
func Write(rs []*mesh.Resource, s Spelling) ([]Written, []Finding) {
	w := &writer{spell: s, objects: map[[4]string]*mesh.Resource{}, groups: map[[3]string]*mesh.Resource{}}
	for _, r := range rs {
		if _, ok := r.Services(); ok {
			w.groups[[3]string{r.Mesh, r.Namespace, r.ObjectName}] = r
		}
		w.objects[[4]string{string(r.Kind), r.Mesh, r.Namespace, r.ObjectName}] = r
	}
	rs = slices.Clone(rs)
	slices.SortStableFunc(rs, mesh.ReferentsFirst)
	for _, r := range rs {
		w.resource(r)
	}
	return w.list, w.losses
}

type writer struct {
	spell   Spelling
	objects map[[4]string]*mesh.Resource // by kind, mesh and Kubernetes' names
	groups  map[[3]string]*mesh.Resource // of backends, the same
	list    []Written
	losses  []Finding

	of *mesh.Resource
}

func (w *writer) lose(path, text string) {
	w.losses = append(w.losses, Finding{
		Place: Place{Path: path}, What: string(w.of.Kind) + " " + w.of.Name, Outcome: Dropped, Text: text,
	})
}

func (w *writer) resource(r *mesh.Resource) {
	w.of = r
	if _, ok := r.Services(); ok {
		w.lose("kind", "the API has no backend groups: each node that names this one has its services as backends")
		return
	}
	w.metadata(r)
	out := Written{Kind: r.Kind, Name: r.Name, Mesh: r.Mesh, Spec: w.members("spec", reflect.ValueOf(r.Spec).Elem())}
	switch s := r.Spec.(type) {
	case *mesh.GatewayRouteSpec:
		out.Parent = w.gatewayOf(r, s)
	case *mesh.VirtualNodeSpec:
		out.Spec = w.withGroups(out.Spec, s)
	}
	w.list = append(w.list, out)
	if s, ok := r.Spec.(*mesh.VirtualRouterSpec); ok {
		for i := range s.Routes {
			w.list = append(w.list, Written{
				Kind: KindRoute, Name: s.Routes[i].Name, Mesh: r.Mesh, Parent: r.Name,
				Spec: w.members(fmt.Sprintf("spec.routes[%d]", i), reflect.ValueOf(&s.Routes[i]).Elem()),
			})
		}
	}
}

// metadata is Kubernetes': the API has names and nothing else.
func (w *writer) metadata(r *mesh.Resource) {
	if r.ObjectName != r.Name || r.Namespace != "" {
		w.lose("metadata.name", "its name in Kubernetes, "+strings.TrimPrefix(r.Namespace+"/"+r.ObjectName, "/")+": the API has App Mesh's name only")
	}
	if len(r.Labels) > 0 {
		w.lose("metadata.labels", "the API has none")
	}
	if len(r.Annotations) > 0 {
		w.lose("metadata.annotations", "the API has none")
	}
}

// elsewhere are the members of CRDs that are written in another place, or are a form of
// one that is.
var elsewhere = []string{"awsName", "backendGroups", "meshRef", "name", "routes", "virtualGatewayRef", "virtualNodeARN", "virtualRouterARN", "virtualServiceARN"}

func (w *writer) members(path string, v reflect.Value) Members {
	out := Members{}
	for _, m := range membersOf(v.Type()) {
		f, at := v.Field(m.index), path+"."+m.crd
		if m.to != "" {
			if name, ok := w.reference(at, m, v); ok {
				out = append(out, Pair{w.spell.Member(m.api), name})
			}
			continue
		}
		if f.IsZero() && strings.Contains(v.Type().Field(m.index).Tag.Get("yaml"), ",omitempty") {
			if m.needed {
				w.lose(at, "is absent, and the API requires it")
			}
			continue
		}
		out = append(out, Pair{w.spell.Member(m.api), w.value(at, f)})
	}
	for _, crd := range onlyCRD[v.Type().Name()] {
		if f, ok := fieldOf(v.Type(), crd); ok && !slices.Contains(elsewhere, crd) && !v.FieldByIndex(f.Index).IsZero() {
			w.lose(path+"."+crd, "the API has no such field")
		}
	}
	return out
}

func (w *writer) value(path string, v reflect.Value) any {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		return w.members(path, v)
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range v.Len() {
			list[i] = w.value(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
		return list
	}
	return v.Interface()
}

// reference is the name of what a reference or an ARN leads to.
func (w *writer) reference(path string, m member, of reflect.Value) (Name, bool) {
	name := Name{Kind: m.to, Mesh: w.of.Mesh, Loose: of.Type() == reflect.TypeFor[mesh.VirtualServiceBackend]()}
	if ref, ok := reflect.TypeAssert[*mesh.Reference](of.Field(m.index)); ok && ref != nil {
		name.Name = w.nameOf(path, m.to, *ref)
		return name, true
	}
	field := strings.TrimSuffix(of.Type().Field(m.index).Name, "Ref") + "ARN"
	text := of.FieldByName(field).String()
	last, in, ok := fromARN(text)
	switch {
	case !ok:
		return name, false
	case in != w.of.Mesh:
		w.lose(strings.TrimSuffix(path, "Ref")+"ARN", "refers to another mesh: "+text)
	}
	name.Name = last
	return name, true
}

// nameOf is the App Mesh name of what a reference leads to.
func (w *writer) nameOf(path string, k mesh.Kind, ref mesh.Reference) string {
	namespace := cmp.Or(ref.Namespace, w.of.Namespace)
	if to := w.objects[[4]string{string(k), w.of.Mesh, namespace, ref.Name}]; to != nil {
		return to.Name
	}
	name := mesh.DefaultName(k, namespace, ref.Name)
	if namespace != "" {
		w.lose(path, fmt.Sprintf("what it refers to is not among the objects: it is taken for %q", name))
	}
	return name
}

// gatewayOf is the gateway of a route: the one that it names, else the only one.
func (w *writer) gatewayOf(r *mesh.Resource, s *mesh.GatewayRouteSpec) string {
	const path = "spec.virtualGatewayRef"
	if ref := s.VirtualGatewayRef; ref != nil {
		return w.nameOf(path, mesh.KindVirtualGateway, mesh.Reference{Namespace: ref.Namespace, Name: ref.Name})
	}
	var all []*mesh.Resource
	for _, o := range w.objects {
		if o.Kind == mesh.KindVirtualGateway && o.Mesh == r.Mesh {
			all = append(all, o)
		}
	}
	if g := r.GatewayOf(all); g != nil {
		return g.Name
	}
	w.lose(path, "is absent, and the API requires the gateway: which it is cannot be told from these objects; import takes it by --gateway NAME")
	return ""
}

// withGroups adds the services of backend groups to a node's backends.
func (w *writer) withGroups(spec Members, s *mesh.VirtualNodeSpec) Members {
	var names []any
	for i, ref := range s.BackendGroups {
		path := fmt.Sprintf("spec.backendGroups[%d]", i)
		group := w.groups[[3]string{w.of.Mesh, cmp.Or(ref.Namespace, w.of.Namespace), ref.Name}]
		if group == nil {
			w.lose(path, "the API has no backend groups, and this one is not among the objects")
			continue
		}
		w.lose(path, "the API has no backend groups: its services are backends")
		services, _ := group.Services()
		for _, service := range services {
			service.Namespace = cmp.Or(service.Namespace, group.Namespace)
			names = append(names, Name{Kind: mesh.KindVirtualService, Mesh: w.of.Mesh, Name: w.nameOf(path, mesh.KindVirtualService, service), Loose: true})
		}
	}
	if len(names) == 0 {
		return spec
	}
	at := slices.IndexFunc(spec, func(p Pair) bool { return p.Name == w.spell.Member("backends") })
	if at < 0 {
		at, spec = len(spec), append(spec, Pair{w.spell.Member("backends"), []any{}})
	}
	backends := spec[at].Value.([]any)
	for _, name := range names {
		backend := Members{{w.spell.Member("virtualService"), Members{{w.spell.Member("virtualServiceName"), name}}}}
		given := func(b any) bool { return b.(Members)[0].Value.(Members)[0].Value == name }
		if !slices.ContainsFunc(backends, given) {
			backends = append(backends, backend)
		}
	}
	spec[at].Value = backends
	return spec
}

// MarshalJSON writes the members in their order.
func (m Members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(p.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalJSON writes the name.
func (n Name) MarshalJSON() ([]byte, error) { return json.Marshal(n.Name) }
