package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Document is one object of a manifest: its envelope, and a spec that its
// owner decodes. The envelope of a foreign group is read, not judged.
type Document struct {
	APIVersion, Kind, Name, Namespace, File string

	Line   int // of its first field
	Labels map[string]string
	// Annotations, like Labels, are filled for our own groups only.
	Annotations map[string]string

	format   *Format
	src      *source
	root     *value // nil once it was let go of
	loose    bool
	envelope Errors // what is wrong around the spec; Decode reports it with the rest
}

// Forget lets go of all but the text of a document that is all that its text has. What is asked of
// it later is read again each time: a server keeps thousands, and asks hardly ever.
func (d *Document) Forget() { d.root = nil }

// tree is the document as it was read, nil of one that was not.
func (d *Document) tree() *value {
	if d.root != nil || d.src == nil {
		return d.root
	}
	docs, err := d.format.parse(&source{file: d.src.file, text: d.src.text, first: d.src.first, unfilled: d.src.unfilled})
	if err != nil || len(docs) != 1 {
		panic("internal error: a document is not read as before")
	}
	return docs[0].root
}

// Foreign reports whether the document is of a group that the format does not have.
func (d *Document) Foreign() bool { return !d.format.has(d.APIVersion) }

// has reports whether the group of apiVersion is one of the format's, in whatever version.
func (f *Format) has(apiVersion string) bool {
	group, _, _ := strings.Cut(apiVersion, "/")
	return slices.ContainsFunc(f.Versions, func(version string) bool {
		g, _, _ := strings.Cut(version, "/")
		return g == group
	})
}

// documents are those of a text: one, or the items of a list. What is wrong with the
// text already is told with each of them that is not foreign: of those only the name is
// read.
func (f *Format) documents(src *source, root *value, wrong Errors) ([]*Document, error) {
	switch root.shape {
	case isNull:
		return nil, nil
	case isBroken:
		return nil, wrong.OrNil()
	}
	d := &Document{File: src.file, Line: root.at.line, format: f, src: src, root: root}
	if root.shape != isMap {
		return nil, d.errorAt(root.at, "", fmt.Sprintf("is %s, not a manifest with apiVersion and kind", root.shape))
	}
	text := func(v *value) string {
		if v == nil || v.shape != isString {
			return ""
		}
		return v.text
	}
	d.APIVersion, d.Kind = text(root.get("apiVersion")), text(root.get("kind"))
	if d.APIVersion == "v1" && d.Kind == "List" {
		return f.listItems(src, root, wrong)
	}
	meta := root.get("metadata")
	d.Name, d.Namespace = text(meta.get("name")), text(meta.get("namespace"))
	for _, name := range []string{"apiVersion", "kind"} {
		v := root.get(name)
		if text(v) != "" {
			continue
		}
		if v == nil || v.shape != isBroken {
			wrong = append(slices.Clone(wrong), d.errorAt(root.at, name, "is missing"))
		}
		return nil, wrong
	}
	if d.Foreign() {
		return []*Document{d}, nil
	}
	d.readEnvelope()
	d.envelope = append(d.envelope, wrong...)
	return []*Document{d}, nil
}

func (f *Format) listItems(src *source, root *value, wrong Errors) ([]*Document, error) {
	items := root.get("items")
	if items == nil || items.shape != isList {
		return nil, wrong.OrNil()
	}
	var docs []*Document
	var errs Errors
	for _, item := range items.items {
		if k := item.get("kind"); k != nil && k.text == "List" {
			errs = append(errs, src.errorAt(item.at, "items", "a list in a list is not accepted"))
			continue
		}
		ds, err := f.documents(src, item, wrong)
		docs = append(docs, ds...)
		errs = append(errs, AsErrors(err)...)
	}
	return docs, errs.OrNil()
}

// Meta is what is kept of Kubernetes' ObjectMeta.
type Meta struct {
	Name        string            `yaml:"name" check:"required len=1..253 pattern=segment"`
	Namespace   string            `yaml:"namespace,omitempty" check:"len=0..63 pattern=namespace"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// What an API server adds to an object: read without effect, which Ignored
// reports, so that the output of kubectl can be applied as it is.
var (
	serverFields     = []string{"status"}
	serverMetaFields = []string{
		"clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
		"generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
	}
)

// readEnvelope checks everything except the spec.
func (d *Document) readEnvelope() {
	dec := &decoder{src: d.src, loose: d.loose}
	known := append([]string{"apiVersion", "kind", "metadata", "spec"}, serverFields...)
	for _, f := range d.root.fields {
		if !slices.Contains(known, f.name) {
			dec.unknown(f.at, f.name, f.name, known)
		}
	}
	if versions := d.format.Versions; !slices.Contains(versions, d.APIVersion) {
		dec.fail(d.root.get("apiVersion").at, "apiVersion", fmt.Sprintf("%q is not known; use %s", d.APIVersion, strings.Join(versions, " or ")))
	}
	dec.ignore = map[string]bool{}
	for _, name := range serverMetaFields {
		dec.ignore["metadata."+name] = true
	}
	var meta Meta
	dec.field("metadata", d.root.at, d.root.get("metadata"), &meta)
	d.Labels, d.Annotations, d.envelope = meta.Labels, meta.Annotations, dec.errs
}

// Ignored warns of what an API server added, which has no effect here.
func (d *Document) Ignored() Errors {
	var errs Errors
	warn := func(path string) {
		e := d.FieldError(path, "has no effect: it is an API server's own")
		e.Exported = true
		errs = append(errs, e)
	}
	root := d.tree()
	for _, f := range root.fields {
		if slices.Contains(serverFields, f.name) {
			warn(f.name)
		}
	}
	if meta := root.get("metadata"); meta != nil {
		for _, f := range meta.fields {
			if slices.Contains(serverMetaFields, f.name) {
				warn("metadata." + f.name)
			}
		}
	}
	return errs
}

// Has reports whether a field such as metadata.labels was given a value.
func (d *Document) Has(path string) bool {
	v := d.tree()
	for path != "" {
		name, rest := firstStep(path)
		if v, _ = v.step(name); v == nil || v.shape == isNull {
			return false
		}
		path = rest
	}
	return true
}

// Decode reads the spec into a struct, strictly: an unknown field, a field
// given twice and a value of the wrong type are errors, and all are reported,
// with those of metadata and of the fields beside the spec.
// Fields are named by their yaml (else json) tags; `check` tags are obeyed.
func (d *Document) Decode(into any) error {
	dec := &decoder{src: d.src, errs: slices.Clone(d.envelope), loose: d.loose}
	root := d.tree()
	spec := root.get("spec")
	if spec == nil { // an absent spec is an empty one
		spec = &value{shape: isMap, at: root.at}
	}
	dec.field("spec", root.at, spec, into)
	return dec.done()
}

// FieldError is an error at the field's place, or that of the nearest field
// above it that was written. A nil Document has no places.
func (d *Document) FieldError(path, msg string) *Error {
	if d == nil || d.src == nil {
		return &Error{Field: path, Msg: msg}
	}
	at, v := d.find(path)
	e := d.errorAt(at, path, msg)
	if v != nil {
		e.Unfilled, e.Unknowable = v.unfilled, v.shape == isOpaque
	}
	return e
}

// DanglingError is about a reference at path to what does not exist; says is the
// reference in words, and where is added behind.
func (d *Document) DanglingError(path, says, where string) *Error {
	e := d.FieldError(path, says+", which does not exist"+where)
	e.Dangling = says
	return e
}

func (d *Document) errorAt(at pos, path, msg string) *Error { return d.src.errorAt(at, path, msg) }

// find follows a path such as spec.routes[1].name as far as it was written; the value is
// nil where it ends before.
func (d *Document) find(path string) (pos, *value) {
	v := d.tree()
	at := v.at
	for path != "" {
		name, rest := firstStep(path)
		path = rest
		next, nextAt := v.step(name)
		if next == nil {
			return at, nil
		}
		v, at = next, nextAt
	}
	return at, v
}

// step goes to a member ("name") or an item ("[3]").
func (v *value) step(name string) (*value, pos) {
	if index, ok := strings.CutPrefix(name, "["); ok {
		i := -1
		if n, err := fmt.Sscanf(index, "%d]", &i); n != 1 || err != nil || i < 0 || i >= len(v.items) {
			return nil, pos{}
		}
		return v.items[i], v.items[i].at
	}
	for _, f := range v.fields {
		if f.name == name {
			if len(f.val.fields)+len(f.val.items) > 0 || f.val.shape == isNull {
				return f.val, f.at // a block's place is its key
			}
			return f.val, f.val.at
		}
	}
	return nil, pos{}
}
