package importer

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// Unresolved is the outcome of a reference that leads to nothing in the files: a server may
// have what it names.
const Unresolved dialect.Outcome = "unresolved"

// objects lists every object once, by its place.
func (in *reading) objects(r *Report) {
	rs := in.found.Resources
	_ = mesh.AssignMeshes(rs) // what belongs to none is listed where they are joined
	for _, res := range rs {
		o := &Object{Kind: string(res.Kind), Mesh: res.Mesh, Name: res.Name, State: Complete, resource: res}
		if res.Doc != nil {
			p := in.place(dialect.Place{File: res.Doc.File, Line: res.Doc.Line})
			o.File, o.Line = p.File, p.Line
		}
		r.Objects = append(r.Objects, o)
	}
	add := func(list []dialect.Object, state State) {
		for _, f := range list {
			p := in.place(f.Place)
			r.Objects = append(r.Objects, &Object{Kind: f.Kind, Mesh: f.Mesh, Name: f.Name, State: state, File: p.File, Line: p.Line})
		}
	}
	add(in.found.Incomplete, Incomplete)
	add(in.found.Refused, Refused)
	order := fileOrder(in.files)
	slices.SortStableFunc(r.Objects, func(a, b *Object) int { return cmp.Or(order[a.File]-order[b.File], a.Line-b.Line) })
}

func fileOrder(files []File) map[string]int {
	order := map[string]int{}
	for i, f := range files {
		order[f.Name] = i
	}
	return order
}

func sortFindings(r *Report, files []File) {
	order := fileOrder(files)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(order[a.File]-order[b.File], a.Line-b.Line, a.Column-b.Column)
	})
}

// tell adds a finding of a resource.
func (in *reading) tell(e *manifest.Error, of *mesh.Resource, outcome dialect.Outcome) {
	in.found.Findings = append(in.found.Findings, dialect.Finding{
		Place: dialect.Place{File: e.File, Line: e.Line, Column: e.Column, Path: e.Field},
		What:  whatOf(of), Outcome: outcome, Text: e.Msg,
	})
}

// missing lists a field that is waited for, in the place of the finding that a text stands
// for it.
func (in *reading) missing(e *manifest.Error, of *mesh.Resource) {
	for i := range in.found.Findings {
		if f := &in.found.Findings[i]; f.Outcome == dialect.Opaque && f.File == e.File && f.Line == e.Line && f.Path == e.Field {
			f.Outcome, f.Text = dialect.Missing, e.Msg
			return
		}
	}
	in.tell(e, of, dialect.Missing)
}

func whatOf(r *mesh.Resource) string { return string(r.Kind) + " " + r.ObjectName }

// untranslated names what asks for what this version does not do.
func (in *reading) untranslated(r *Report) {
	for _, o := range r.Objects {
		if o.State != Complete {
			continue
		}
		for _, e := range mesh.Unsupported(o.resource) {
			o.State = Untranslated
			in.tell(e, o.resource, dialect.Refused)
		}
		for _, e := range mesh.Unfilled(o.resource) {
			o.State = Incomplete
			in.missing(e, o.resource)
		}
	}
}

// joined resolves the references of what is complete, and leaves out what refers to what is
// left out.
func (in *reading) joined(r *Report) {
	listed := map[string]bool{}
	for again := true; again; {
		again = false
		of := named{}
		var rs []*mesh.Resource
		for _, o := range r.Objects {
			if o.State == Complete {
				of.add(o)
				rs = append(rs, o.resource)
			}
		}
		left := r.leftOut()
		for _, e := range problems(rs) {
			o := of.meant(e)
			if o == nil {
				continue // said of an object that was left out meanwhile
			}
			outcome, state := Unresolved, o.State
			switch out := left.of(e); {
			case out != nil:
				outcome, state = dialect.Refused, Dependent
				e.Msg = e.Dangling + ": " + out.Kind + " " + out.Name + " is " + string(out.State)
			case !resolvable(e):
				outcome, state = dialect.Refused, Refused
			}
			if o.State != state {
				o.State, again = state, true
				of.remove(o)
			}
			text := e.Error()
			if missing, ok := errors.AsType[*mesh.MissingError](e); ok && outcome == Unresolved && missing.Kind == mesh.KindMesh {
				e.Msg = notAmong(missing.ObjectName)
				text = e.Msg // of each mesh once
			}
			if !listed[text] {
				listed[text] = true
				in.tell(e, o.resource, outcome)
			}
		}
	}
}

// named are objects by the name that messages have, and the file, in their order.
type named map[[2]string][]*Object

func keyOf(o *Object) [2]string {
	if o.resource.Doc == nil {
		return [2]string{o.resource.String()}
	}
	return [2]string{o.resource.String(), o.resource.Doc.File}
}

func (n named) add(o *Object) { n[keyOf(o)] = append(n[keyOf(o)], o) }

// remove takes an object out that is left out, so that the next mistake in its line is of the one
// before it.
func (n named) remove(o *Object) {
	n[keyOf(o)] = slices.DeleteFunc(n[keyOf(o)], func(other *Object) bool { return other == o })
}

// meant is the object that a mistake is of, nil where all of its name are left out: the last of
// those of its file that begin before it, and of two in one line the second.
func (n named) meant(e *manifest.Error) *Object {
	all := n[[2]string{e.Object, e.File}]
	if len(all) == 0 { // its place is another one's
		for key, others := range n {
			if key[0] == e.Object && len(others) > 0 {
				return others[len(others)-1]
			}
		}
		return nil
	}
	i, _ := slices.BinarySearchFunc(all, e.Line+1, func(o *Object, line int) int {
		if o.resource.Doc == nil {
			return -1
		}
		return cmp.Compare(o.resource.Doc.Line, line)
	})
	return all[max(0, i-1)]
}

// problems are what is wrong between objects. Those that belong to no mesh hide nothing of
// the others.
func problems(rs []*mesh.Resource) manifest.Errors {
	own := make([]*mesh.Resource, len(rs))
	for i, r := range rs {
		c := *r
		own[i] = &c
	}
	homeless := map[string]bool{}
	errs := manifest.AsErrors(mesh.AssignMeshes(own))
	for _, e := range errs {
		homeless[e.Object] = true
		e.Dangling = e.Msg
	}
	own = append(own, elsewhere(own)...)
	if len(errs) > 0 { // what refers to what is looked at all the same
		for _, e := range manifest.AsErrors(mesh.AssignMeshes(own)) {
			homeless[e.Object] = true
			own = slices.DeleteFunc(own, func(r *mesh.Resource) bool { return r.String() == e.Object })
		}
	}
	_, err := mesh.NewGraph(own)
	unnamed := map[string]bool{}
	for _, r := range own {
		unnamed[r.String()] = r.Mesh == theOnlyOne
	}
	for _, e := range manifest.AsErrors(err) {
		byARN := strings.HasSuffix(e.Field, "ARN") && !resolvable(e) // which has a mesh's name, that may be this one's
		if !byARN || !unnamed[e.Object] {
			errs = append(errs, e)
		}
	}
	return errs
}

// theOnlyOne is in the place of a mesh's name that nothing tells.
const theOnlyOne = "(the only one)"

// elsewhere are meshes in the place of those that objects name and that are in no file: they
// are another stack's, or the server's. Where nothing names one, it is the only mesh.
func elsewhere(rs []*mesh.Resource) []*mesh.Resource {
	there := map[string]bool{}
	for _, r := range rs {
		if r.Kind == mesh.KindMesh {
			there[r.Name], there[r.ObjectName] = true, true
		}
	}
	var list []*mesh.Resource
	stand := func(name string) {
		if !there[name] {
			there[name] = true
			list = append(list, &mesh.Resource{Kind: mesh.KindMesh, Mesh: name, Name: name, ObjectName: name, Spec: &mesh.MeshSpec{AWSName: name}})
		}
	}
	for _, r := range rs {
		if r.Kind != mesh.KindMesh && r.Mesh != "" {
			stand(r.Mesh)
		}
	}
	if len(there) == 0 {
		stand(theOnlyOne)
	}
	return list
}

// notAmong is what is told of a mesh that the files do not have: the server may.
func notAmong(name string) string {
	if name == "" {
		return "there is no mesh among the files, and --mesh names none: it is the only one that the server has"
	}
	return "mesh " + name + " is not among the files: the server must have it"
}

// resolvable reports whether a server may have what is lacking here.
func resolvable(e *manifest.Error) bool { return e.Dangling != "" }

// leftOut are the objects that are not applied, by the names that references have.
type leftOut map[mesh.MissingError]*Object

// leftOut lists those that are left out so far; of several of one name the first holds.
func (r *Report) leftOut() leftOut {
	out := leftOut{}
	add := func(as mesh.MissingError, o *Object) {
		if out[as] == nil {
			out[as] = o
		}
	}
	for _, o := range r.Objects {
		if o.State == Complete {
			continue
		}
		kind, name := mesh.Kind(o.Kind), o.Name
		if o.resource != nil {
			name = o.resource.ObjectName
		}
		add(mesh.MissingError{Kind: kind, ObjectName: name}, o)
		add(mesh.MissingError{Kind: kind, AppMeshName: o.Name}, o)
		add(mesh.MissingError{Kind: kind}, o)
	}
	return out
}

// of is the one to which a dangling reference leads, nil where it leads to nothing. Of meshes
// any counts: where one is left out, what it was called is often what is wrong with it.
func (l leftOut) of(e *manifest.Error) *Object {
	missing, ok := errors.AsType[*mesh.MissingError](e)
	if !ok {
		return nil
	}
	if missing.Kind == mesh.KindMesh {
		return l[mesh.MissingError{Kind: mesh.KindMesh}]
	}
	return l[*missing]
}

// settled names in each object that is complete the mesh and the gateway that it was taken for
// where it names none: a server that has another one, too, could not tell.
func (r *Report) settled() {
	called := map[string]string{} // metadata.name of meshes
	gateways := map[string][]*mesh.Resource{}
	for _, o := range r.Objects {
		switch {
		case o.State != Complete:
		case o.resource.Kind == mesh.KindMesh:
			called[o.Mesh] = o.resource.ObjectName
		case o.resource.Kind == mesh.KindVirtualGateway:
			gateways[o.Mesh] = append(gateways[o.Mesh], o.resource)
		}
	}
	for _, o := range r.Objects {
		if o.State == Complete {
			o.resource.JoinMesh(called[o.Mesh])
			o.resource.JoinGateway(gateways[o.Mesh])
		}
	}
}

// Resolved takes away what was unresolved: all of it was found where it was applied.
func (r *Report) Resolved() {
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Outcome == Unresolved })
	delete(r.Counts, Unresolved)
}

// Done reports whether every object is complete and no file was refused.
func (r *Report) Done() bool {
	for _, o := range r.Objects {
		if o.State != Complete {
			return false
		}
	}
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Object == "" && (f.Outcome == dialect.Refused || f.Outcome == dialect.Missing)
	})
}

// Manifest is one object that is complete, in CRD form.
type Manifest struct {
	Object  *Object
	Content []byte
}

// Manifests are what is complete, in the order of the files.
func (r *Report) Manifests() []Manifest {
	var list []Manifest
	for _, o := range r.Objects {
		if o.State == Complete {
			list = append(list, Manifest{o, o.resource.Encode()})
		}
	}
	return list
}

// Beginnings are the options with which the meshes among what is complete begin: their proxies
// pass on the headers with underscores that their routes look at, and, where that is wanted, their
// policy observes, so that none of the calls that App Mesh let through is denied before anybody has
// looked.
func (r *Report) Beginnings(observe bool) []Manifest {
	var list []Manifest
	for _, o := range r.Objects {
		if o.State != Complete || o.Kind != string(mesh.KindMesh) {
			continue
		}
		spec := &mesh.MeshOptionsSpec{HeadersWithUnderscores: r.Underscored(o.Mesh)}
		if observe {
			spec.Authorization = mesh.AuthorizationObserve
		} else if spec.HeadersWithUnderscores == nil {
			continue
		}
		list = append(list, Manifest{
			&Object{Kind: string(mesh.KindMeshOptions), Mesh: o.Mesh, Name: o.resource.ObjectName, State: Complete, File: o.File, Line: o.Line},
			(&mesh.Resource{Kind: mesh.KindMeshOptions, ObjectName: o.resource.ObjectName, Spec: spec}).Encode(),
		})
	}
	return list
}

// Underscored are the headers with underscores that routes of a mesh look at.
func (r *Report) Underscored(of string) []string {
	var names []string
	for _, o := range r.Objects {
		if o.State == Complete && o.Mesh == of {
			names = append(names, mesh.Underscored(o.resource)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Has reports whether a finding is one of this object.
func (o *Object) Has(f Finding) bool {
	return f.File == o.File && o.resource != nil && f.Object == whatOf(o.resource)
}

// Encode is an object that could be read in CRD form; nil for others.
func (o *Object) Encode() []byte {
	if o.resource == nil {
		return nil
	}
	return o.resource.Encode()
}
