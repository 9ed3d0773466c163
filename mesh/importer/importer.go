package importer

import (
	"slices"
	"strings"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/aws"
	"signet.example/mesh/dialect/cloudformation"
	"signet.example/mesh/dialect/crd"
	"signet.example/mesh/dialect/envoydump"
	"signet.example/mesh/dialect/terraform"
	"signet.example/mesh/placeholder"
)

// Options are what files leave open.
type Options struct {
	// Form is that of all files; "" tells it by their content.
	Form Form
	// Namespace and Mesh are those of objects that name none.
	Namespace, Mesh string
	// Other is what the other forms leave open, beside the mesh and the parameters of
	// templates, which are Values.
	Other dialect.Options
	// Values are those of placeholders, each checked by [placeholder.CheckValue].
	Values map[string]string
}

// State is what became of an object.
type State string

// The states.
const (
	Complete     State = "complete"
	Incomplete   State = "incomplete"     // something of it is not known
	Untranslated State = "not translated" // it asks for what this version does not do
	Refused      State = "refused"        // it breaks a rule
	Dependent    State = "left out"       // it refers to one that is left out
)

// Object is one object of App Mesh, and what became of it.
type Object struct {
	Kind  string `json:"kind"`
	Mesh  string `json:"mesh"`
	Name  string `json:"name"`
	State State  `json:"state"`
	File  string `json:"file"`
	Line  int    `json:"line"`

	resource *mesh.Resource
}

// File is one input, and what it was taken for.
type File struct {
	Name string `json:"file"`
	Form Form   `json:"dialect"`           // "" for one that was skipped
	Why  string `json:"skipped,omitempty"` // it was skipped
}

// Context is what stands in the files beside App Mesh's objects.
type Context struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
}

// Finding is what became of one field.
type Finding struct {
	File    string          `json:"file"`
	Line    int             `json:"line"`
	Column  int             `json:"column"`
	Object  string          `json:"object"` // "VirtualNode web"; "" for a whole file
	Field   string          `json:"field"`
	Outcome dialect.Outcome `json:"outcome"`
	Text    string          `json:"text"`
}

// String is one line: where, which field, what.
func (f Finding) String() string {
	return dialect.Finding{Place: dialect.Place{File: f.File, Line: f.Line, Column: f.Column, Path: f.Field}, Outcome: f.Outcome, Text: f.Text}.String()
}

// Report is what became of everything in the files.
type Report struct {
	Files    []File    `json:"files"`
	Objects  []*Object `json:"objects"`
	Context  []Context `json:"context"`
	Findings []Finding `json:"findings"`
	// Counts are of Findings, by outcome.
	Counts map[dialect.Outcome]int `json:"counts"`
	// Unfilled are the placeholders without a value in App Mesh's objects.
	Unfilled []string `json:"unfilled"`
	// Unused are the values that no placeholder of the files has.
	Unused []string `json:"unused"`
}

// Read finds what all files have.
func Read(files []dialect.File, o Options) *Report {
	other := o.Other
	other.Mesh, other.Parameters = o.Mesh, o.Values
	in := &reading{given: o, drafts: dialect.NewDrafts(other), filled: map[string]*placeholder.Filled{}, used: map[string]bool{}}
	in.dumps = envoydump.New(in.drafts)
	for _, f := range files {
		in.file(f)
	}
	in.dumps.Add()
	return in.report()
}

// reading is what was found so far.
type reading struct {
	given  Options
	drafts *dialect.Drafts // of the forms that are not CRDs
	dumps  *envoydump.Dumps
	filled map[string]*placeholder.Filled // by file
	used   map[string]bool                // placeholders
	files  []File
	found  dialect.Found
}

func (in *reading) file(f dialect.File) {
	form, why := in.given.Form, ""
	if form == "" {
		form, why = formOf(f)
	}
	in.files = append(in.files, File{Name: f.Name, Form: form, Why: why})
	if form == "" {
		return
	}
	if form == CloudFormation { // its ${NAME} is its own
		for name := range in.given.Values {
			in.used[name] = in.used[name] || strings.Contains(string(f.Content), name)
		}
		cloudformation.Read(in.drafts, f)
		return
	}
	if form == Terraform { // it has what came of its variables
		terraform.Read(in.drafts, f)
		return
	}
	if form == Envoy { // it has what came of everything
		in.dumps.Read(f)
		return
	}
	filled, err := placeholder.Fill(string(f.Content), textOf(f), in.given.Values)
	if err != nil {
		in.found.Findings = append(in.found.Findings, dialect.Finding{
			Place: dialect.Place{File: f.Name}, Outcome: dialect.Refused, Text: err.Error(),
		})
		return
	}
	in.filled[f.Name] = filled
	for _, name := range filled.Names {
		in.used[name] = true
	}
	f.Content, f.Unfilled = []byte(filled.Text), filled.Written
	switch form {
	case CRD:
		found := crd.Read(f, crd.Options{Namespace: in.given.Namespace, Mesh: in.given.Mesh})
		for i := range found.Findings {
			if e := &found.Findings[i]; filled.Actions && e.What == "" && e.Outcome == dialect.Refused {
				e.Text += "; it is a template with actions such as {{ if … }}: render it first, as with `helm template`"
			}
		}
		in.add(found)
	case AWS:
		aws.Read(in.drafts, f)
	}
}

func (in *reading) add(found *dialect.Found) {
	in.found.Resources = append(in.found.Resources, found.Resources...)
	in.found.Incomplete = append(in.found.Incomplete, found.Incomplete...)
	in.found.Refused = append(in.found.Refused, found.Refused...)
	in.found.Context = append(in.found.Context, found.Context...)
	in.found.Findings = append(in.found.Findings, found.Findings...)
	in.found.Taken = append(in.found.Taken, found.Taken...)
	in.found.Untold += found.Untold
}

// textOf is how values are put into a file.
func textOf(f dialect.File) placeholder.Form {
	if text := strings.TrimSpace(string(f.Content)); text != "" && (text[0] == '{' && !strings.HasPrefix(text, "{{") || text[0] == '[') {
		return placeholder.JSON
	}
	return placeholder.YAML
}

// place is where something stands in its file as it was written.
func (in *reading) place(p dialect.Place) dialect.Place {
	if f := in.filled[p.File]; f != nil {
		p.Line, p.Column = f.Origin(p.Line, p.Column)
	}
	return p
}

func (in *reading) report() *Report {
	r := &Report{Files: in.files, Objects: []*Object{}, Context: []Context{}, Findings: []Finding{}, Unfilled: []string{}, Unused: []string{}, Counts: map[dialect.Outcome]int{}}
	in.add(in.drafts.Found())
	in.objects(r)
	in.untranslated(r)
	in.joined(r)
	r.settled()
	for _, c := range in.found.Context {
		p := in.place(c.Place)
		r.Context = append(r.Context, Context{Kind: c.Kind, Name: c.Name, File: p.File, Line: p.Line})
	}
	once := map[Finding]bool{}
	for _, f := range slices.Concat(in.found.Findings, in.found.Taken) {
		p := in.place(f.Place)
		finding := Finding{File: p.File, Line: p.Line, Column: p.Column, Object: f.What, Field: f.Path, Outcome: f.Outcome, Text: f.Text}
		if once[finding] {
			continue
		}
		once[finding] = true
		r.Findings = append(r.Findings, finding)
		r.Counts[f.Outcome]++
		for _, name := range f.Unfilled {
			if !slices.Contains(r.Unfilled, name) {
				r.Unfilled = append(r.Unfilled, name)
			}
		}
	}
	r.Counts[dialect.Mapped] += in.found.Untold
	sortFindings(r, in.files)
	for name := range in.given.Values {
		if !in.used[name] {
			r.Unused = append(r.Unused, name)
		}
	}
	slices.Sort(r.Unfilled)
	slices.Sort(r.Unused)
	return r
}
