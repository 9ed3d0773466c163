package ecs

import (
	"slices"
	"strings"
)

// kind is what a value can be.
type kind int

const (
	scalar kind = iota
	list
	mapping
	// opaque is what only AWS evaluates (a function of CloudFormation), or what stands elsewhere (an alias).
	opaque
)

// value is one value of a text, with the place where it stands, and what becomes of it.
type value struct {
	kind       kind
	start, end int
	text       string // of a scalar, as it is meant
	block      bool   // a mapping or list of YAML's lines, without brackets
	children   []child

	become  string // another text in its place; "" for its own
	why     *Change
	inserts []insert
}

// child is a member of a mapping, with its name, or an item of a list.
type child struct {
	name  string
	start int // of its name or dash; of the value of an item in brackets
	mark  int // where its colon or dash ends, in YAML's lines
	val   *value
	gone  *Change
}

// insert is a child that is new.
type insert struct {
	after int // the child that it follows; -1 where there is none
	text  string
	why   *Change
}

// reach has it end where its last child does, at least.
func (v *value) reach() {
	if n := len(v.children); n > 0 {
		v.end = max(v.end, v.children[n-1].val.end)
	}
}

// get is the member of that name, nil where there is none.
func (v *value) get(name string) *value {
	if v == nil || v.kind != mapping {
		return nil
	}
	if i := slices.IndexFunc(v.children, func(c child) bool { return c.name == name }); i >= 0 {
		return v.children[i].val
	}
	return nil
}

// is reports whether it is a scalar with that text.
func (v *value) is(text string) bool { return v != nil && v.kind == scalar && v.text == text }

// literal is the text of a scalar, "" of anything else.
func (v *value) literal() string {
	if v == nil || v.kind != scalar {
		return ""
	}
	return v.text
}

// items are those of a list; none of anything else.
func (v *value) items() []*value {
	if v == nil || v.kind != list {
		return nil
	}
	var items []*value
	for _, c := range v.children {
		items = append(items, c.val)
	}
	return items
}

// replace puts another text in its place.
func (v *value) replace(text string, why *Change) { v.become, v.why = text, why }

// remove takes out the children that are wanted out.
func (v *value) remove(out func(c child) bool, why func(c child) *Change) {
	for i := range v.children {
		if c := &v.children[i]; c.gone == nil && out(*c) {
			c.gone = why(*c)
		}
	}
}

// insert adds a child as the text of its line or of what stands between commas: behind the first
// one, so that the line before it has its comma already.
func (v *value) insert(text string, why *Change) {
	v.inserts = append(v.inserts, insert{min(0, len(v.children)-1), text, why})
}

// insertBefore adds it before a child: where that is the first, at the beginning.
func (v *value) insertBefore(i int, text string, why *Change) {
	v.inserts = append(v.inserts, insert{i - 1, text, why})
}

// edited reports whether anything in it becomes something else.
func (v *value) edited() bool {
	if v.become != "" || len(v.inserts) > 0 {
		return true
	}
	return slices.ContainsFunc(v.children, func(c child) bool { return c.gone != nil || c.val.edited() })
}

// writer writes a text with its edits.
type writer struct {
	from string
	b    strings.Builder
	all  bool  // take everything apart and join it again: for tests
	out  spans // of what was written, and why
}

func (w *writer) because(why *Change, text string) {
	at := w.b.Len()
	w.b.WriteString(text)
	w.out = append(w.out, span{start: at, end: w.b.Len(), why: why})
}

func (w *writer) value(v *value) {
	switch {
	case v.become != "":
		w.because(v.why, v.become)
	case len(v.children) == 0 && len(v.inserts) == 0, !w.all && !v.edited():
		w.b.WriteString(w.from[v.start:v.end])
	case v.block:
		w.blockOf(v)
	default:
		w.flowOf(v)
	}
}

// part is one child between commas.
type part struct {
	lead, trail string // what stands before and behind it
	write       func()
}

func (w *writer) flowOf(v *value) {
	text := w.from
	first, usual, tail := "", "", ""
	if n := len(v.children); n > 0 {
		first = text[v.start+1 : v.children[0].start]
		usual, tail = first, text[v.children[n-1].val.end:v.end-1]
	}
	leads := []string{first}
	var trails []string
	for i := 1; i < len(v.children); i++ {
		between := text[v.children[i-1].val.end:v.children[i].start]
		trail, lead, _ := strings.Cut(between, ",")
		leads, trails = append(leads, lead), append(trails, trail)
		if i == 1 {
			usual = lead
		}
	}
	trails = append(trails, "")
	var parts []part
	add := func(after int) {
		for _, x := range v.inserts {
			if x.after == after {
				parts = append(parts, part{usual, "", func() { w.because(x.why, x.text) }})
			}
		}
	}
	add(-1)
	for i, c := range v.children {
		if c.gone == nil {
			parts = append(parts, part{leads[i], trails[i], func() { w.childOf(c) }})
		}
		add(i)
	}
	w.b.WriteByte(text[v.start])
	for i, p := range parts {
		if i > 0 {
			w.b.WriteString(parts[i-1].trail + "," + p.lead)
		} else {
			w.b.WriteString(first)
		}
		p.write()
	}
	if len(parts) > 0 {
		w.b.WriteString(tail)
	}
	w.b.WriteByte(text[v.end-1])
}

// childOf writes a name and its value, or an item.
func (w *writer) childOf(c child) {
	before := w.from[c.start:c.val.start]
	if c.val.become != "" && c.mark > 0 { // the value may begin on another line, after comments
		before = w.from[c.start:c.mark] + " "
	}
	w.b.WriteString(before)
	w.value(c.val)
}

func (w *writer) blockOf(v *value) {
	text := w.from
	begin := v.children[0].start
	line := "\n" + strings.Repeat(" ", begin-1-strings.LastIndexByte(text[:begin], '\n'))
	if strings.Contains(text, "\r\n") {
		line = "\r" + line
	}
	w.b.WriteString(text[v.start:begin])
	written, before := false, ""
	put := func(write func()) {
		if written && before == "" {
			before = line
		}
		w.b.WriteString(before)
		write()
		written, before = true, ""
	}
	add := func(after int) {
		for _, x := range v.inserts {
			if x.after == after {
				held := before
				before = ""
				put(func() { w.because(x.why, x.text) })
				before = held
			}
		}
	}
	add(-1)
	for i, c := range v.children {
		gap := ""
		if i+1 < len(v.children) {
			gap = text[c.val.end:v.children[i+1].start]
		}
		switch {
		case c.gone == nil:
			put(func() { w.childOf(c) })
		case strings.TrimSpace(before) == "":
			before = ""
		default: // comments before what is taken out
			before = strings.TrimRight(before[:strings.LastIndexByte(before, '\n')], "\r")
		}
		if !written && strings.TrimSpace(gap) == "" {
			gap = ""
		}
		add(i)
		before += gap
	}
	if strings.TrimSpace(before) != "" {
		w.b.WriteString(before)
	}
	if !written {
		w.b.WriteString(map[kind]string{list: "[]", mapping: "{}"}[v.kind])
	}
}

// span is a part of a text, and why it is not as it was.
type span struct {
	start, end int
	why        *Change
	behind     bool // it is as it was, and something new comes behind it
}

type spans []span

// gone are the parts of the old text that are not in the new one, or have something new behind them.
func (v *value) gone() spans {
	if v.become != "" {
		return spans{{start: v.start, end: v.end, why: v.why}}
	}
	var all spans
	for _, x := range v.inserts {
		at := v.start + 1
		if x.after >= 0 {
			at = v.children[x.after].val.end
		}
		all = append(all, span{start: at - 1, end: at, why: x.why, behind: true})
	}
	for _, c := range v.children {
		switch {
		case c.gone != nil:
			all = append(all, span{start: c.start, end: c.val.end, why: c.gone})
		case c.val.become != "":
			all = append(all, span{start: c.start, end: c.val.end, why: c.val.why})
		default:
			all = append(all, c.val.gone()...)
		}
	}
	return all
}
