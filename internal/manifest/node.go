package manifest

import (
	"bytes"
	"slices"
	"strings"
)

// Node is one value of a text that is not a manifest, with the place where it stands:
// what another form of the same objects is read as, and a manifest made of. The zero
// Node is a value that is not there. Immutable.
type Node struct{ v *value }

// Form is how a text that is no manifest is read.
type Form struct {
	// Tags are the YAML tags that are accepted. !X is read as a mapping with the one key
	// that Tags has for it.
	Tags map[string]string
	// Line and Column are where the text begins in its file, from 1; 0 is its beginning.
	Line, Column int
	// Unfilled is as in [Format].
	Unfilled func(text string) (written string, names []string)
}

// Read reads the values of a text: the one of a YAML document, or JSON values one after
// the other, as a command writes them that is run several times. Of a JSON list that is too
// long for one document it reads the items. What it returns beside the mistakes is what could be read. It has the bounds of manifests.
func (f Form) Read(file string, content []byte) ([]Node, Errors) {
	var roots []Node
	var errs Errors
	read, work := 0, 0
	texts := pieces(content)
	if f.Line > 0 {
		texts = slices.Values([]piece{{strings.Repeat(" ", min(max(f.Column-1, 0), maxPad)) + strings.ReplaceAll(string(content), "\r\n", "\n"), f.Line}})
	} else if values := jsonValues(content); len(values) > 1 {
		texts = slices.Values(values)
	}
	for p := range texts {
		src := &source{file: file, text: p.text, first: p.first, nodes: true, unfilled: f.Unfilled}
		if read++; read > maxValues || work > maxWork || len(errs) >= maxFileErrors {
			return roots, append(errs, src.errorAt(pos{line: p.first}, "", "the file has too much or too many mistakes; it is not read further: give it in parts"))
		}
		root, err := f.read(src)
		work += src.tokens * src.tokens
		errs = append(errs, AsErrors(err)...)
		if root.v != nil {
			roots = append(roots, root)
		}
	}
	return roots, errs
}

// maxValues is of one file. An account's quota is 200 virtual nodes of a mesh.
const maxValues = 10_000

func (f Form) read(src *source) (Node, error) {
	if err := src.checkText(); err != nil {
		return Node{}, err
	}
	if src.blank() {
		return Node{}, nil
	}
	src.startLines()
	body, err := src.parse()
	if body == nil || err != nil {
		return Node{}, err
	}
	t := newTree(src)
	t.tags = f.Tags
	v, wrong := t.build(body)
	return Node{v}, wrong.OrNil()
}

// jsonValues cuts a text into its JSON objects and lists, each with spaces before it for
// what stands before it in its first line; nil where it is something else.
func jsonValues(content []byte) []piece {
	text := strings.ReplaceAll(string(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))), "\r\n", "\n")
	var list []piece
	depth, quoted, line, lineAt := 0, false, 1, 0
	items, inner := false, false // of a list: whether they are the values, and whether it is open
	start, first, pad := 0, 1, 0 // of the value that is open
	for i := 0; i < len(text) && len(list) <= maxValues; i++ {
		switch c := text[i]; {
		case c == '\n':
			line, lineAt = line+1, i+1
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' && depth == 0 && !items && len(list) == 0 && len(text) > maxBytes:
			items, inner = true, true
		case c == ']' && depth == 0 && inner:
			inner = false
		case c == ',' && depth == 0 && inner:
		case c == '{' || c == '[':
			if depth++; depth == 1 {
				start, first, pad = i, line, min(i-lineAt, maxPad)
			}
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return nil
			}
			if depth == 0 {
				list = append(list, piece{strings.Repeat(" ", pad) + text[start:i+1], first})
			}
		case depth == 0 && c != ' ' && c != '\t':
			return nil
		}
	}
	if (depth != 0 || inner) && len(list) <= maxValues {
		return nil
	}
	return list
}

// maxPad is how far from the beginning of its line a value can be and its column be told.
const maxPad = 1000

// Is is what a value can be.
type Is int

// The values that there are. Broken is one whose mistake is told.
const (
	Null Is = iota
	Scalar
	List
	Mapping
	Opaque
	Broken
)

// Is is what the value is; [Null] of the zero Node.
func (n Node) Is() Is {
	if n.v == nil {
		return Null
	}
	switch n.v.shape {
	case isNull:
		return Null
	case isList:
		return List
	case isMap:
		return Mapping
	case isOpaque:
		return Opaque
	case isBroken:
		return Broken
	}
	if len(n.v.unfilled) > 0 {
		return Opaque
	}
	return Scalar
}

// Text is a scalar as it is written, or what stands for an opaque value.
func (n Node) Text() string {
	if n.v == nil {
		return ""
	}
	return n.v.text
}

// Why is the reason why an opaque value cannot be known.
func (n Node) Why() string {
	if n.v == nil {
		return ""
	}
	if len(n.v.unfilled) > 0 {
		return strings.Join(n.v.unfilled, ", ") + " has no value"
	}
	return n.v.why
}

// IsString reports whether the value is a string, and no other scalar.
func (n Node) IsString() bool { return n.v != nil && n.v.shape == isString }

// Items are those of a list.
func (n Node) Items() []Node {
	if n.v == nil {
		return nil
	}
	items := make([]Node, len(n.v.items))
	for i, v := range n.v.items {
		items[i] = Node{v}
	}
	return items
}

// Member is one of a mapping.
type Member struct {
	Name string
	// Written is what messages call it: "" for its name. With "-" it is no step of a
	// path: what is below stands, for messages, in the mapping itself. What begins with a
	// slash is the whole path.
	Written string
	Value   Node

	at pos
}

// Members are those of a mapping, as they stand there.
func (n Node) Members() []Member {
	if n.v == nil {
		return nil
	}
	list := make([]Member, len(n.v.fields))
	for i, f := range n.v.fields {
		list[i] = Member{f.name, f.written, Node{f.val}, f.at}
	}
	return list
}

// Get is the member of that name, the zero Node where there is none, or null.
func (n Node) Get(name string) Node {
	if n.v == nil {
		return Node{}
	}
	return Node{n.v.get(name)}
}

// Place is where the value stands.
func (n Node) Place() (file string, line, column int) {
	if n.v == nil {
		return "", 0, 0
	}
	if n.v.at.src != nil {
		file = n.v.at.src.file
	}
	return file, n.v.at.line, n.v.at.col
}

// Error is a mistake at the node, or at a member's name.
func (n Node) Error(path, msg string) *Error {
	if n.v == nil || n.v.at.src == nil {
		return &Error{Field: path, Msg: msg}
	}
	e := n.v.at.src.errorAt(n.v.at, path, msg)
	e.Unfilled, e.Unknowable = n.v.unfilled, n.v.shape == isOpaque
	return e
}

// Key is a node with the place of the member's name.
func (m Member) Key() Node { return Node{&value{shape: isNull, at: m.at, size: 1, depth: 1}} }

// String makes a string that stands where n does.
func (n Node) String(text string) Node {
	return Node{&value{shape: isString, text: text, at: n.at(), size: 1, depth: 1}}
}

// Opaque makes a value that stands where n does and cannot be known, and why not. Where a
// string is wanted, text stands for it.
func (n Node) Opaque(text, why string) Node {
	made := &value{shape: isOpaque, text: text, why: why, at: n.at(), size: 1, depth: 1}
	if n.v != nil {
		made.unfilled = n.v.unfilled
	}
	return Node{made}
}

// List makes a list that stands where n does.
func (n Node) List(items ...Node) Node {
	v := &value{shape: isList, at: n.at(), size: 1, depth: 1}
	for _, item := range items {
		if item.v == nil {
			item = n.null()
		}
		v.items = append(v.items, item.v)
		v.add(item.v)
	}
	return Node{v}
}

// Mapping makes a mapping that stands where n does.
func (n Node) Mapping(members ...Member) Node {
	v := &value{shape: isMap, at: n.at(), size: 1, depth: 1}
	for _, m := range members {
		if m.Value.v == nil {
			m.Value = n.null()
		}
		if m.at == (pos{}) {
			m.at = m.Value.v.at
		}
		v.fields = append(v.fields, field{name: m.Name, at: m.at, val: m.Value.v, written: m.Written})
		v.add(m.Value.v)
	}
	return Node{v}
}

func (v *value) add(child *value) {
	v.depth = max(v.depth, child.depth+1)
	v.size = min(v.size+child.size, 1<<31-1)
}

// Size is how many values there are, as often as each is referred to.
func (n Node) Size() int {
	if n.v == nil {
		return 0
	}
	return n.v.size
}

func (n Node) null() Node { return Node{&value{shape: isNull, at: n.at(), size: 1, depth: 1}} }

func (n Node) at() pos {
	if n.v == nil {
		return pos{}
	}
	return n.v.at
}

// Made is a manifest that is made of nodes.
type Made struct {
	APIVersion, Kind string
	// Name is metadata.name; Written in it is the path by which messages call it.
	Name Member
	// Spec is the spec, and Written the path of it.
	Spec Member
	// Rest is what messages call the rest of a path below a mapping that does not have it.
	Rest func(path string) string
	// Loose: scalars are taken for each other, as "80" for the number 80.
	Loose bool
}

// Document is the manifest. Its mistakes are told by the places of the nodes and the
// paths that these are called by.
func (m Made) Document() (*Document, error) {
	at := m.Spec.Value
	name, spec := m.Name, m.Spec
	name.Name, spec.Name = "name", "spec"
	root := at.Mapping(
		Member{Name: "apiVersion", Value: at.String(m.APIVersion)},
		Member{Name: "kind", Value: at.String(m.Kind)},
		Member{Name: "metadata", Written: "-", Value: at.Mapping(name)},
		spec,
	)
	if root.v.size > maxNodes || root.v.depth > maxDepth {
		return nil, at.Error(spec.Written, "expands to too much")
	}
	src := &source{}
	if at.v != nil && at.v.at.src != nil {
		src.file = at.v.at.src.file
	}
	d := &Document{
		APIVersion: m.APIVersion, Kind: m.Kind, Name: name.Value.Text(), File: src.file, Line: root.v.at.line,
		format: &Format{Versions: []string{m.APIVersion}}, src: src, root: root.v, loose: m.Loose,
	}
	src.written = func(path string) string { return d.writtenPath(path, m.Rest) }
	d.readEnvelope()
	return d, nil
}

// writtenPath is what a path is called in the text that the document was made of.
func (d *Document) writtenPath(path string, rest func(string) string) string {
	out, v := "", d.root
	for path != "" {
		name, after := firstStep(path)
		f := v.member(name)
		next, _ := v.step(name)
		if next == nil {
			return join(out, rest(path))
		}
		step := name
		if f != nil && f.written != "" {
			step = f.written
		}
		switch {
		case step[0] == '/':
			out = step[1:]
		case step != "-":
			out = join(out, step)
		}
		v, path = next, after
	}
	return out
}

func join(path, step string) string {
	if path == "" || step == "" || step[0] == '[' {
		return path + step
	}
	return path + "." + step
}

// firstStep is a member ("name") or an item ("[3]"), and the path below it.
func firstStep(path string) (step, rest string) {
	if i := strings.IndexAny(path[1:], ".["); i >= 0 {
		return path[:i+1], strings.TrimPrefix(path[i+1:], ".")
	}
	return path, ""
}

// member is the one of that name, nil where there is none.
func (v *value) member(name string) *field {
	if i := slices.IndexFunc(v.fields, func(f field) bool { return f.name == name }); i >= 0 {
		return &v.fields[i]
	}
	return nil
}
