package dialect

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

// KindRoute is a route by itself, as the API has it. CRDs have it in its router.
const KindRoute mesh.Kind = "Route"

// Drafts collects the objects of all files, before they are resources.
type Drafts struct {
	Options Options

	list    []*Draft
	later   []func()
	exports map[string]func() manifest.Node
	files   map[string]int // in the order in which they were read
	found   Found
}

// NewDrafts is empty.
func NewDrafts(o Options) *Drafts {
	return &Drafts{Options: o, exports: map[string]func() manifest.Node{}, files: map[string]int{}}
}

// Draft is an object as it stands in a file, in the API's structure.
type Draft struct {
	Kind mesh.Kind
	// Name, Mesh and Parent, which is the router of a route and the gateway of a gateway
	// route, are names or ARNs; of one that the file does not have the value is not there.
	// Written is the whole path of each.
	Name, Mesh, Parent, Spec manifest.Member
	Spelling                 Spelling
	// At is where the object stands.
	At manifest.Node

	name, mesh, parent string            // "" where it is not known
	shown              string            // in the place of the name, where that is not known
	unknown            bool              // something of it cannot be known: it is incomplete
	given              []manifest.Member // of the names, those that the file has
	routes             []*Draft
}

// Add adds an object.
func (d *Drafts) Add(x Draft) { d.list = append(d.list, &x) }

// Later calls f when all files are read.
func (d *Drafts) Later(f func()) { d.later = append(d.later, f) }

// Export offers a value to the other files by name; the first one of a name holds.
func (d *Drafts) Export(name string, value func() manifest.Node) {
	if d.exports[name] == nil {
		d.exports[name] = value
	}
}

// Exported is what a file offers by that name; there is no value where none does.
func (d *Drafts) Exported(name string) manifest.Node {
	if value := d.exports[name]; value != nil {
		return value()
	}
	return manifest.Node{}
}

// File notes that a file is read, in whose order findings are told.
func (d *Drafts) File(name string) {
	if _, ok := d.files[name]; !ok {
		d.files[name] = len(d.files)
	}
}

// Wrong adds what is wrong with a file.
func (d *Drafts) Wrong(errs manifest.Errors) {
	for _, e := range errs {
		d.tell(findingOf(e, "", Refused))
	}
}

// maxFindings is how many are told. A mesh of 1,000 objects has some 3,000 defaults.
const maxFindings = 20_000

func (d *Drafts) tell(f Finding) {
	switch n := len(d.found.Findings); {
	case n < maxFindings:
		d.found.Findings = append(d.found.Findings, f)
	case n == maxFindings:
		d.found.Findings = append(d.found.Findings, Finding{Place: Place{File: f.File}, Outcome: f.Outcome, Text: fmt.Sprintf("there are more than %d findings: the others are not told", maxFindings)})
	}
}

// Note adds a finding.
func (d *Drafts) Note(what string, o Outcome, at manifest.Node, path, text string) {
	d.tell(findingOf(at.Error(path, text), what, o))
}

// AddContext adds what stands beside App Mesh's objects.
func (d *Drafts) AddContext(o Object) { d.found.Context = append(d.found.Context, o) }

// AddIncomplete adds an object of which not even that is known which kind it is, or
// whether there is one.
func (d *Drafts) AddIncomplete(o Object) { d.found.Incomplete = append(d.found.Incomplete, o) }

func findingOf(e *manifest.Error, what string, o Outcome) Finding {
	return Finding{
		Place: Place{File: e.File, Line: e.Line, Column: e.Column, Path: e.Field},
		What:  what, Outcome: o, Text: e.Msg, Unfilled: e.Unfilled, Excerpt: e.Excerpt,
	}
}

// ObjectAt is an object that stands at a node.
func ObjectAt(at manifest.Node, path, kind, name string) Object {
	o := Object{Kind: kind, Name: name}
	o.File, o.Line, o.Column = at.Place()
	o.Path = path
	return o
}

func (x *Draft) object() Object {
	o := ObjectAt(x.At, "", string(x.Kind), cmp.Or(x.name, x.shown))
	o.Mesh = x.mesh
	return o
}

// what is the object as findings name it.
func (x *Draft) what() string { return x.object().String() }

// Found makes resources of all objects. It is asked for once, at the end.
func (d *Drafts) Found() *Found {
	for _, f := range d.later {
		f()
	}
	slices.SortStableFunc(d.list, func(a, b *Draft) int {
		one, _, _ := a.At.Place()
		other, _, _ := b.At.Place()
		return cmp.Compare(d.files[one], d.files[other])
	})
	for _, x := range d.list {
		d.settle(x)
	}
	once := d.withoutRepeated()
	routers := map[string][]*Draft{} // by name
	for _, x := range once {
		if x.Kind == mesh.KindVirtualRouter {
			routers[x.name] = append(routers[x.name], x)
		}
	}
	for _, x := range once {
		if x.Kind == KindRoute {
			d.place(x, routers[x.parent])
		}
	}
	for _, x := range once {
		if x.Kind != KindRoute {
			d.finish(x)
		}
	}
	slices.SortStableFunc(d.found.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(d.files[a.File], d.files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &d.found
}

// settle finds the names of an object: its own, or those of the options.
func (d *Drafts) settle(x *Draft) {
	x.shown = x.Name.Value.Text()
	x.name = d.nameOf(x, &x.Name, d.Options.Name, "name", true)
	if x.Kind == mesh.KindMesh {
		x.mesh = x.name
		return
	}
	x.mesh = d.nameOf(x, &x.Mesh, d.Options.Mesh, "mesh", false)
	switch x.Kind {
	case KindRoute:
		x.parent = d.nameOf(x, &x.Parent, d.Options.Router, "router", true)
	case mesh.KindGatewayRoute:
		x.parent = d.nameOf(x, &x.Parent, d.Options.Gateway, "gateway", true)
	}
}

func (d *Drafts) nameOf(x *Draft, m *manifest.Member, option, of string, must bool) string {
	switch m.Value.Is() {
	case manifest.Null:
	case manifest.Opaque:
		if option == "" {
			x.unknown = true
			d.Note(x.what(), Missing, m.Value, x.path(m, of), "cannot be known: "+m.Value.Why())
			return ""
		}
	default:
		x.given = append(x.given, manifest.Member{Name: x.path(m, of), Value: m.Value})
		if of, _, ok := fromARN(m.Value.Text()); ok {
			m.Value = m.Value.String(of)
		}
		return m.Value.Text()
	}
	if option != "" {
		m.Value = x.At.String(option)
		d.Note(x.what(), Defaulted, x.At, x.path(m, of), fmt.Sprintf("is %q, by --%s", option, of))
		return option
	}
	if must {
		x.unknown = true
		d.Note(x.what(), Missing, x.At, x.path(m, of), "the file does not have the "+of+" of this object: say it by --"+of+" NAME")
	}
	return ""
}

func (x *Draft) path(m *manifest.Member, of string) string {
	if m.Written == "" {
		return of
	}
	return m.Written
}

// arn has the mesh, and behind it types and names.
var arn = regexp.MustCompile(`^arn:[a-z0-9-]+:appmesh:[a-z0-9-]*:[0-9]*:mesh/([^/]+)(?:/[A-Za-z]+/([^/]+))*$`)

// fromARN is the name of what an ARN is of, and its mesh.
func fromARN(text string) (name, of string, ok bool) {
	m := arn.FindStringSubmatch(text)
	if m == nil {
		return "", "", false
	}
	if m[2] == "" {
		return m[1], m[1], true
	}
	return m[2], m[1], true
}

// withoutRepeated are the objects without those that were given before.
func (d *Drafts) withoutRepeated() []*Draft {
	given := map[[4]string]*Draft{}
	var once []*Draft
	for _, x := range d.list {
		key := [4]string{string(x.Kind), x.mesh, x.parent, x.name}
		first := given[key]
		if first == nil || x.unknown { // of what is not known it is not known that it is the same
			if !x.unknown {
				given[key] = x
			}
			once = append(once, x)
			continue
		}
		d.repeated(x, first)
	}
	return once
}

// repeated refuses an object that was given before: which of the two App Mesh had is not
// in the files.
func (d *Drafts) repeated(x, first *Draft) {
	file, line, _ := first.At.Place()
	d.Note(x.what(), Refused, x.At, x.Name.Written, fmt.Sprintf("was given before, at %s:%d: give one of the two", file, line))
	d.found.Refused = append(d.found.Refused, x.object())
}

// place puts a route into its router.
func (d *Drafts) place(x *Draft, named []*Draft) {
	var routers []*Draft
	for _, r := range named {
		if x.parent != "" && (r.mesh == x.mesh || r.mesh == "" || x.mesh == "") {
			routers = append(routers, r)
		}
	}
	switch {
	case len(routers) == 1:
		r := routers[0]
		if i := slices.IndexFunc(r.routes, func(o *Draft) bool { return o.name == x.name && !o.unknown && !x.unknown }); i >= 0 {
			d.repeated(x, r.routes[i]) // one of them does not name its mesh
			return
		}
		r.routes = append(r.routes, x)
		return
	case len(routers) > 1:
		d.Note(x.what(), Missing, x.At, x.path(&x.Mesh, "mesh"), fmt.Sprintf("several meshes have a router %q: say which", x.parent))
	case x.parent != "":
		d.Note(x.what(), Missing, x.At, x.path(&x.Parent, "router"), fmt.Sprintf("its router %q is not among the files: give it with them", x.parent))
	}
	d.found.Incomplete = append(d.found.Incomplete, x.object())
}

// finish makes a resource of a draft, or tells why there is none.
func (d *Drafts) finish(x *Draft) {
	s := &shaper{drafts: d, mesh: x.mesh}
	r, wrong := s.resource(x)
	refused, unknown := false, x.unknown
	for _, e := range wrong {
		outcome := Refused
		if e.Unknowable || len(e.Unfilled) > 0 {
			outcome, unknown = Missing, true
		} else {
			refused = true
		}
		d.tell(findingOf(e, x.what(), outcome))
	}
	s.tellOpaque(wrong)
	objects := []Object{x.object()}
	for _, route := range x.routes {
		objects = append(objects, route.object())
		unknown = unknown || route.unknown
	}
	switch {
	case refused:
		d.found.Refused = append(d.found.Refused, objects...)
	case unknown:
		d.found.Incomplete = append(d.found.Incomplete, objects...)
	default:
		d.taken(s, x, r)
		d.found.Resources = append(d.found.Resources, r)
		s.tellDefaults(x, r)
	}
}

// maxTaken is how many values are told that were taken as they stand. A mesh of 1,000
// objects has some 20,000.
const maxTaken = 200_000

// taken adds a finding for each value that was taken of a resource, with what there is to
// say of it.
func (d *Drafts) taken(s *shaper, x *Draft, r *mesh.Resource) {
	list := Noted(s.taken, mesh.Warnings(r), x.what())
	room := min(len(list), maxTaken-len(d.found.Taken))
	d.found.Taken = append(d.found.Taken, list[:room]...)
	d.found.Untold += len(list) - room + s.more
}
