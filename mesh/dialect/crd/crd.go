// Package crd reads App Mesh's CRDs (appmesh.k8s.aws/v1beta2) as Kubernetes took them,
// more tolerantly than apply does: a field that the CRD does not have is dropped, documents
// of other kinds are context, a default namespace is given as kubectl's -n.
//
// It must not know where files come from, nor what is done with what was found.
package crd

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// Options are what manifests leave open.
type Options struct {
	// Namespace is that of objects that name none; "" leaves them without.
	Namespace string
	// Mesh is that of objects that name none, in place of the only one there is.
	Mesh string
}

// Read finds what one file has.
func Read(file dialect.File, o Options) *dialect.Found {
	r := &reader{Options: o, found: &dialect.Found{}}
	docs, err := mesh.SplitTemplate(file.Name, file.Content, file.Unfilled)
	for _, d := range docs {
		r.document(d)
	}
	for _, e := range manifest.AsErrors(err) {
		if len(e.Unfilled) > 0 {
			r.unfilled(e, "", dialect.Missing)
			continue
		}
		r.tell(e, "", dialect.Refused)
	}
	return r.found
}

type reader struct {
	Options

	found *dialect.Found
}

func (r *reader) tell(e *manifest.Error, what string, outcome dialect.Outcome) {
	r.found.Findings = append(r.found.Findings, dialect.Finding{
		Place: dialect.Place{File: e.File, Line: e.Line, Column: e.Column, Path: e.Field},
		What:  what, Outcome: outcome, Text: e.Msg, Unfilled: e.Unfilled, Excerpt: e.Excerpt,
	})
}

// unfilled lists a field that is not known, since placeholders have no value.
func (r *reader) unfilled(e *manifest.Error, what string, outcome dialect.Outcome) {
	e.Msg = strings.Join(e.Unfilled, ", ") + " has no value, and no other text can stand here: --set " + e.Unfilled[0] + "=VALUE"
	if outcome == dialect.Opaque {
		e.Msg = strings.Join(e.Unfilled, ", ") + " has no value, and stays as it is written: --set " + e.Unfilled[0] + "=VALUE"
	}
	r.tell(e, what, outcome)
}

func (r *reader) document(d *manifest.Document) {
	o := dialect.Object{Place: dialect.Place{File: d.File, Line: d.Line}, Kind: d.Kind, Name: d.Name}
	if d.Foreign() || d.APIVersion == mesh.SignetGroupVersion {
		r.found.Context = append(r.found.Context, o)
		return
	}
	if d.Namespace == "" {
		d.Namespace = r.Namespace
	}
	resource, dropped, err := mesh.ParseLoosely(d)
	listed, values := map[string]bool{}, map[string]string{}
	for leaf := range d.Leaves() {
		values[leaf.Path] = leaf.Text
	}
	wrong, missing := 0, 0
	for _, e := range manifest.AsErrors(err) {
		listed[e.Field] = true
		if v, given := values[e.Field]; given && strings.HasSuffix(e.Field, "ARN") && len(e.Unfilled) == 0 && !strings.HasPrefix(v, "arn:") {
			// a word stands where an ARN was to be put in
			missing++
			e.Msg += ": give the ARN, as with --set NAME=arn:… where a name stands in its place"
			r.tell(e, o.String(), dialect.Missing)
			continue
		}
		if len(e.Unfilled) > 0 {
			missing++
			r.unfilled(e, o.String(), dialect.Missing)
			continue
		}
		wrong++
		r.tell(e, o.String(), dialect.Refused)
	}
	for _, e := range dropped {
		e.Msg = "the CRD does not have this field, and Kubernetes dropped it"
		if e.Meant != "" {
			e.Msg += "; did you mean " + e.Meant + "?"
		}
		r.tell(e, o.String(), dialect.Dropped)
	}
	for leaf := range d.Leaves() {
		if len(leaf.Unfilled) == 0 || listed[leaf.Path] {
			continue
		}
		e := d.FieldError(leaf.Path, "")
		if slices.Contains(names, leaf.Path) {
			missing++
			r.unfilled(e, o.String(), dialect.Missing)
			continue
		}
		r.unfilled(e, o.String(), dialect.Opaque)
	}
	switch {
	case wrong > 0:
		r.found.Refused = append(r.found.Refused, o)
	case missing > 0:
		r.found.Incomplete = append(r.found.Incomplete, o)
	default:
		resource.JoinMesh(r.Mesh)
		r.fields(d, resource, dropped, o.String())
		r.found.Resources = append(r.found.Resources, resource)
	}
}

// names are the fields without which it is not known which object one is: no text stands
// for them.
var names = []string{"metadata.name", "metadata.namespace", "spec.awsName", "spec.meshRef.name"}

// envelope are the fields that every manifest has.
var envelope = []string{"apiVersion", "kind"}

// fields lists what became of each field of a resource that is complete.
func (r *reader) fields(d *manifest.Document, resource *mesh.Resource, dropped manifest.Errors, what string) {
	given := map[string]bool{}
	var notes manifest.Errors
	for _, w := range mesh.Warnings(resource) {
		if w.Exported {
			w.Msg = "an API server wrote it: it is no part of the object"
			r.tell(w, what, dialect.Dropped)
			dropped = append(dropped, w)
			continue
		}
		notes = append(notes, w)
	}
	var taken []dialect.Finding
	for leaf := range d.Leaves() {
		given[leaf.Path] = true
		at := dialect.Place{File: d.File, Line: leaf.Line, Column: leaf.Column, Path: leaf.Path}
		gone := slices.ContainsFunc(dropped, func(e *manifest.Error) bool { return at.Within(e.Field) })
		if gone || len(leaf.Unfilled) > 0 || slices.Contains(envelope, leaf.Path) {
			continue
		}
		taken = append(taken, dialect.Finding{Place: at, What: what, Outcome: dialect.Mapped})
	}
	r.found.Taken = append(r.found.Taken, dialect.Noted(taken, notes, what)...)
	again, err := mesh.Split(d.File, resource.Encode())
	if err != nil || len(again) != 1 {
		panic(fmt.Sprintf("internal error: %s reads back as %d documents: %v", resource, len(again), err))
	}
	for leaf := range again[0].Leaves() {
		if !given[leaf.Path] {
			e := d.FieldError(leaf.Path, "is "+leaf.Text)
			r.tell(e, what, dialect.Defaulted)
		}
	}
}
