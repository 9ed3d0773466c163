package dialect

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

// shaper makes the CRD's structure of the API's.
type shaper struct {
	drafts *Drafts
	mesh   string
	spell  Spelling
	what   string

	opaque []Finding
	taken  []Finding
	more   int // that were taken, beyond those
	wrong  manifest.Errors
}

// specs are the types of specs.
var specs = map[mesh.Kind]reflect.Type{
	mesh.KindMesh:           reflect.TypeFor[mesh.MeshSpec](),
	mesh.KindVirtualNode:    reflect.TypeFor[mesh.VirtualNodeSpec](),
	mesh.KindVirtualService: reflect.TypeFor[mesh.VirtualServiceSpec](),
	mesh.KindVirtualRouter:  reflect.TypeFor[mesh.VirtualRouterSpec](),
	KindRoute:               reflect.TypeFor[mesh.RouteSpec](),
	mesh.KindVirtualGateway: reflect.TypeFor[mesh.VirtualGatewaySpec](),
	mesh.KindGatewayRoute:   reflect.TypeFor[mesh.GatewayRouteSpec](),
}

// resource is a draft as mesh takes it, or everything that is wrong with it.
func (s *shaper) resource(x *Draft) (*mesh.Resource, manifest.Errors) {
	members := s.spec(x)
	if x.mesh != "" && x.Kind != mesh.KindMesh {
		members = append(members, manifest.Member{Name: "meshRef", Written: "/" + x.path(&x.Mesh, "mesh"), Value: named(x.Mesh.Value)})
	}
	if x.Kind == mesh.KindGatewayRoute && x.parent != "" {
		members = append(members, manifest.Member{Name: "virtualGatewayRef", Written: "/" + x.path(&x.Parent, "gateway"), Value: named(x.Parent.Value)})
	}
	if len(x.routes) > 0 {
		members = append(members, manifest.Member{Name: "routes", Value: x.At.List(s.routes(x.routes)...)})
	}
	if x.name == "" {
		x.Name.Value = x.At.String("unknown") // it is incomplete, and looked at all the same
	}
	d, err := manifest.Made{
		APIVersion: mesh.GroupVersion, Kind: string(x.Kind),
		Name:  manifest.Member{Written: "/" + x.path(&x.Name, "name"), Value: x.Name.Value},
		Spec:  manifest.Member{Written: "/" + x.Spec.Written, Value: x.at().Mapping(members...)},
		Rest:  x.Spelling.Path,
		Loose: x.Spelling.Loose,
	}.Document()
	if err != nil {
		return nil, manifest.AsErrors(err)
	}
	r, err := mesh.Parse(d)
	wrong := s.wrong.With(manifest.AsErrors(err))
	if len(wrong) > 0 {
		return nil, wrong
	}
	r.Doc = d
	return r, nil
}

// at is where the spec stands, or else the object.
func (x *Draft) at() manifest.Node {
	if x.Spec.Value.Is() == manifest.Null {
		return x.At
	}
	return x.Spec.Value
}

func named(name manifest.Node) manifest.Node {
	return name.Mapping(manifest.Member{Name: "name", Written: "-", Value: name})
}

// spec is the spec of an object in the CRD's structure.
func (s *shaper) spec(x *Draft) []manifest.Member {
	s.spell, s.what = x.Spelling, x.what()
	for _, m := range x.given {
		s.take(m.Name, m.Value)
	}
	switch n := x.Spec.Value; n.Is() {
	case manifest.Mapping:
		return s.members(x.Spec.Written, n, specs[x.Kind])
	case manifest.Null:
		if x.Kind != mesh.KindMesh {
			s.fail(x.At, x.Spec.Written, "is required")
		}
	case manifest.Opaque:
		s.unknowable(n, x.Spec.Written)
	default:
		s.fail(n, x.Spec.Written, "must be a mapping")
	}
	return nil
}

// routes are a router's, each with the paths of its own file.
func (s *shaper) routes(list []*Draft) []manifest.Node {
	var items []manifest.Node
	for _, x := range list {
		members, forms := s.spec(x), 0
		for i, m := range members {
			members[i].Written = "/" + x.Spec.Written + "." + m.Written
			if f, ok := fieldOf(specs[KindRoute], m.Name); ok && slices.Contains(strings.Fields(f.Tag.Get("check")), "one") {
				forms++
			}
		}
		if forms != 1 && x.Spec.Value.Is() == manifest.Mapping {
			s.fail(x.at(), x.Spec.Written, fmt.Sprintf("needs exactly one of %s, has %d of them", s.forms(), forms))
			continue
		}
		name := manifest.Member{Name: "name", Written: "/" + x.path(&x.Name, "name"), Value: x.Name.Value}
		items = append(items, x.at().Mapping(append([]manifest.Member{name}, members...)...))
	}
	return items
}

func (s *shaper) forms() string {
	var list []string
	for _, name := range []string{"grpcRoute", "httpRoute", "http2Route", "tcpRoute"} {
		list = append(list, s.spell.Member(name))
	}
	return strings.Join(list, ", ")
}

func (s *shaper) fail(at manifest.Node, path, msg string) {
	if len(s.wrong) < manifest.MaxErrors {
		s.wrong = append(s.wrong, at.Error(path, msg))
	}
}

func (s *shaper) unknowable(at manifest.Node, path string) {
	if len(s.wrong) < manifest.MaxErrors {
		e := at.Error(path, "cannot be known: "+at.Why())
		e.Unknowable = true
		s.wrong = append(s.wrong, e)
	}
}

// members are those of a structure that the model has, by the CRD's names.
func (s *shaper) members(path string, n manifest.Node, t reflect.Type) []manifest.Member {
	known := membersOf(t)
	var out []manifest.Member
	given := map[string]bool{}
	for _, m := range n.Members() {
		at := path + "." + m.Name
		i := slices.IndexFunc(known, func(k member) bool { return s.same(m.Name, k.api) })
		switch {
		case i < 0:
			s.drop(m, at, known)
			continue
		case given[known[i].api]:
			s.fail(m.Key(), at, "was given before")
			continue
		case m.Value.Is() == manifest.Null:
			continue
		}
		k := known[i]
		if s.spell.Blocks {
			if m = s.block(at, m, k); m.Value.Is() == manifest.Null {
				continue
			}
			at = path + "." + m.Written
		}
		given[k.api] = true
		if k.to != "" {
			out = append(out, s.reference(at, m, k))
		} else {
			out = append(out, manifest.Member{Name: k.crd, Written: cmp.Or(m.Written, m.Name), Value: s.value(at, m.Value, k.typ)})
		}
	}
	for _, k := range known {
		if k.needed && !given[k.api] {
			s.fail(n, path+"."+s.spell.Member(k.api), "is required")
		}
	}
	return out
}

// block is a member out of Terraform's state, without a value where it was not given: a
// list of one is what is in it, and zero is no value but where one is required.
func (s *shaper) block(path string, m manifest.Member, k member) manifest.Member {
	m.Written = m.Name
	t := k.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	items := m.Value.Items()
	switch is := m.Value.Is(); {
	case is == manifest.List && len(items) == 0 && k.required && t.Kind() == reflect.Struct:
		m.Value = m.Value.Mapping() // as the provider sends it
	case is == manifest.List && len(items) == 0:
		m.Value = manifest.Node{}
	case is == manifest.List && t.Kind() == reflect.Struct:
		if len(items) > 1 {
			s.fail(m.Value, path, fmt.Sprintf("has %d blocks; must have 1", len(items)))
		}
		m.Written += "[0]"
		if m.Value = items[0]; m.Value.Is() == manifest.Null {
			m.Value = m.Value.Mapping()
		}
	case is == manifest.Mapping && t.Kind() == reflect.Slice: // attributes by key
		for _, pair := range m.Value.Members() {
			items = append(items, pair.Key().Mapping(
				manifest.Member{Name: "key", Value: pair.Key().String(pair.Name)}, manifest.Member{Name: "value", Value: pair.Value}))
		}
		if m.Value = m.Value.List(items...); len(items) == 0 {
			m.Value = manifest.Node{}
		}
	case is == manifest.Scalar && !k.required && (m.Value.Text() == "" || m.Value.Text() == "0" && !m.Value.IsString()):
		m.Value = manifest.Node{}
	}
	return m
}

func (s *shaper) same(written, api string) bool {
	if s.spell.Loose {
		return strings.EqualFold(written, s.spell.Member(api))
	}
	return written == s.spell.Member(api)
}

func (s *shaper) drop(m manifest.Member, path string, known []member) {
	var words []string
	for _, k := range known {
		words = append(words, s.spell.Member(k.api))
	}
	text := "App Mesh's model has no such field"
	if meant := manifest.Nearest(m.Name, words); meant != "" {
		text += "; did you mean " + meant + "?"
	}
	s.drafts.Note(s.what, Dropped, m.Key(), path, text)
}

func (s *shaper) value(path string, n manifest.Node, t reflect.Type) manifest.Node {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Size() == 1 && (n.Is() == manifest.Mapping || n.Is() == manifest.List) {
		s.take(path, n) // that there is nothing in it
	}
	switch {
	case t.Kind() == reflect.Struct && n.Is() == manifest.Mapping:
		return n.Mapping(s.members(path, n, t)...)
	case t.Kind() == reflect.Slice && n.Is() == manifest.List:
		var items []manifest.Node
		for i, item := range n.Items() {
			items = append(items, s.value(fmt.Sprintf("%s[%d]", path, i), item, t.Elem()))
		}
		return n.List(items...)
	}
	s.scalar(path, n)
	return n
}

func (s *shaper) scalar(path string, n manifest.Node) {
	if n.Is() != manifest.Opaque {
		s.take(path, n)
		return
	}
	if len(s.opaque) < maxFindings {
		s.opaque = append(s.opaque, findingOf(n.Error(path, fmt.Sprintf("is %q: %s", manifest.Clip(n.Text()), n.Why())), s.what, Opaque))
	}
}

// take notes a value that is taken as it stands there.
func (s *shaper) take(path string, n manifest.Node) {
	if len(s.taken) == maxTaken {
		s.more++
		return
	}
	f := Finding{Place: Place{Path: path}, What: s.what, Outcome: Mapped}
	f.File, f.Line, f.Column = n.Place()
	s.taken = append(s.taken, f)
}

// reference makes a reference of a name: the object's own, or what its ARN says.
func (s *shaper) reference(path string, m manifest.Member, k member) manifest.Member {
	s.scalar(path, m.Value)
	name, of, ok := fromARN(m.Value.Text())
	if ok && of != s.mesh && s.mesh != "" { // it is refused where references are resolved
		return manifest.Member{Name: strings.TrimSuffix(k.crd, "Ref") + "ARN", Written: m.Name, Value: m.Value}
	}
	value := m.Value
	if ok {
		value = value.String(name)
	}
	return manifest.Member{Name: k.crd, Written: m.Name, Value: named(value)}
}

// tellOpaque adds a finding for each text that stands for something else, except where there is a mistake already.
func (s *shaper) tellOpaque(wrong manifest.Errors) {
	for _, f := range s.opaque {
		if !slices.ContainsFunc(wrong, func(e *manifest.Error) bool { return e.Field == f.Path && e.File == f.File }) {
			s.drafts.tell(f)
		}
	}
}

func fieldOf(t reflect.Type, crd string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name == crd {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// tellDefaults adds a finding for what a resource has and its file does not.
func (s *shaper) tellDefaults(x *Draft, r *mesh.Resource) {
	s.what = x.what()
	s.defaults("spec", reflect.ValueOf(r.Spec).Elem(), r.Doc)
}

func (s *shaper) defaults(path string, v reflect.Value, d *manifest.Document) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			s.defaults(path, v.Elem(), d)
		}
	case reflect.Slice:
		for i := range v.Len() {
			s.defaults(fmt.Sprintf("%s[%d]", path, i), v.Index(i), d)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			at, f := path+"."+name, v.Field(i)
			switch {
			case f.IsZero() || at == "spec.awsName":
			case d.Has(at):
				s.defaults(at, f, d)
			default:
				e := d.FieldError(at, "is "+brief(f)+", as App Mesh takes it")
				s.drafts.tell(findingOf(e, s.what, Defaulted))
			}
		}
	}
}

// brief is a default in words.
func brief(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct && v.NumField() == 1 {
		return brief(v.Field(0))
	}
	return fmt.Sprint(v.Interface())
}
