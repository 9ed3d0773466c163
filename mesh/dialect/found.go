package dialect

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

// Found is what files have: every object is in exactly one of Resources, Incomplete and
// Refused.
type Found struct {
	// Resources are complete: each obeys every rule that can be checked without the
	// others, and has the defaults that App Mesh shows. Their references may lead
	// nowhere, which [mesh.NewGraph] finds.
	Resources []*mesh.Resource
	// Incomplete are objects of which something cannot be known. They must not be served.
	Incomplete []Object
	// Refused are objects that break a rule; Findings has which.
	Refused []Object
	// Context is what stands in the files beside App Mesh's objects, such as a template's
	// other resources.
	Context []Object
	// Taken are the values of the complete ones that were taken as they stand there, and
	// Untold how many there are beyond those.
	Taken  []Finding
	Untold int
	// Findings are what became of the others, told by the place, file after file as they
	// were read.
	Findings []Finding
}

// Object is something in a file that became no resource.
type Object struct {
	Place
	// Kind is App Mesh's, "Route" for a route without its router, or whatever the form
	// calls it.
	Kind string
	// Mesh and Name are "" where they are not known.
	Mesh, Name string
}

// String is the object as messages name it.
func (o Object) String() string {
	if o.Name == "" {
		return fmt.Sprintf("%s of %s:%d", o.Kind, o.File, o.Line)
	}
	return o.Kind + " " + o.Name
}

// Place is where something was written: the file, line and column from 1 (0 where there
// is none), and the path of the field in the words of the file.
type Place struct {
	File         string
	Line, Column int
	Path         string
}

// Outcome is what became of a field.
type Outcome string

// The outcomes.
const (
	// Mapped: the field has another name or form here, and the same meaning.
	Mapped Outcome = "mapped"
	// Defaulted: it was not given; it is what App Mesh took for it.
	Defaulted Outcome = "defaulted"
	// Dropped: the model does not have it, or it has no meaning here.
	Dropped Outcome = "dropped"
	// Opaque: it could not be known what it is; a text stands for it.
	Opaque Outcome = "opaque"
	// Missing: it could not be known, and nothing can stand for it. Its object is incomplete.
	Missing Outcome = "missing"
	// Refused: it breaks a rule, and so does its object.
	Refused Outcome = "refused"
)

// Finding is what became of one field of a file.
type Finding struct {
	Place
	// What is the object that it is of, such as "VirtualNode web"; "" for a whole file.
	What string
	// Outcome is what became of the field.
	Outcome Outcome
	// Text is what there is to say of it.
	Text string
	// Unfilled are the placeholders without a value because of which it is not known.
	Unfilled []string
	// Excerpt is the source with a caret, "" where there is none.
	Excerpt string
}

// String is one line: where, which field, what.
func (f Finding) String() string {
	at := f.File
	if f.Line > 0 {
		at += fmt.Sprintf(":%d", f.Line)
		if f.Column > 0 {
			at += fmt.Sprintf(":%d", f.Column)
		}
	}
	path := f.Path
	if path != "" {
		path += ": "
	}
	return at + ": " + path + string(f.Outcome) + ": " + f.Text
}

// Noted are findings of what was taken of an object, with what there is to say of it: of
// each field it is said once, at the first value in it.
func Noted(taken []Finding, warnings manifest.Errors, what string) []Finding {
	for _, w := range warnings {
		i := slices.IndexFunc(taken, func(f Finding) bool { return f.Text == "" && f.Within(w.Field) })
		if i < 0 {
			taken = append(taken, findingOf(w, what, Mapped))
			continue
		}
		taken[i].Path, taken[i].Text = w.Field, w.Msg
	}
	return taken
}

// Within reports whether a place is that of a field or below it.
func (p Place) Within(field string) bool {
	rest, ok := strings.CutPrefix(p.Path, field)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
