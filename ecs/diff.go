package ecs

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"signet.example/agent/appmeshenv"
)

// Line is one of the diff.
type Line struct {
	// Op is "-" for a line of the old text, "+" for one of the new.
	Op string `json:"op"`
	// Number of the line in its text, from 1.
	Number int    `json:"number"`
	Text   string `json:"text"`
	// Path and Reason are of the change that the line is of.
	Path   string `json:"path"`
	Reason string `json:"reason"`
	// Also are the other changes of the line: of a compact text many stand on one.
	Also []Change `json:"also,omitempty"`
}

// diff has the lines that differ, with the values of variables hidden that may be secrets.
func (r *Result) diff(was, made *document, written spans) {
	from, to := was.hidden(), made.hidden()
	edits := udiff.Lines(from, to)
	u, err := udiff.ToUnifiedDiff("", "", from, edits, 0)
	if err != nil {
		panic("internal error: edits of a diff are not of its text: " + err.Error())
	}
	removed := was.root.gone()
	before, after := starts(was.text), starts(made.text)
	for _, h := range u.Hunks {
		i, j := h.FromLine, h.ToLine
		for _, l := range h.Lines {
			line := Line{Text: strings.TrimRight(l.Content, "\r\n")}
			var why []Change
			if l.Kind == udiff.Delete {
				line.Op, line.Number = "-", i
				why = removed.of(before, i, len(was.text))
				i++
				r.TakenOut++
			} else {
				line.Op, line.Number = "+", j
				why = written.of(after, j, len(made.text))
				j++
				r.Written++
			}
			if len(why) > 0 {
				line.Path, line.Reason, line.Also = why[0].Path, why[0].Reason, why[1:]
			}
			r.Diff = append(r.Diff, line)
		}
	}
	r.besides()
}

// besides gives lines of which only a comma or brace changed the reason of the line beside them.
func (r *Result) besides() {
	for i := range r.Diff {
		if i > 0 && r.Diff[i].Reason == "" {
			r.Diff[i].Path, r.Diff[i].Reason = r.Diff[i-1].Path, r.Diff[i-1].Reason
		}
	}
	for i := len(r.Diff) - 2; i >= 0; i-- {
		if r.Diff[i].Reason == "" {
			r.Diff[i].Path, r.Diff[i].Reason = r.Diff[i+1].Path, r.Diff[i+1].Reason
		}
	}
}

// starts are where the lines of a text begin.
func starts(text string) []int {
	all := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			all = append(all, i+1)
		}
	}
	return all
}

// of are why a line is not as it was, in the order of the line; none where nothing of its own changed.
// What only comes behind something on the line is why where there is nothing else.
func (s spans) of(starts []int, line, end int) []Change {
	begin := starts[line-1]
	if line < len(starts) {
		end = starts[line]
	}
	on := slices.Clone(s)
	on = slices.DeleteFunc(on, func(x span) bool { return x.why == nil || x.start >= end || x.end <= begin })
	if own := slices.DeleteFunc(slices.Clone(on), func(x span) bool { return x.behind }); len(own) > 0 {
		on = own
	} else if len(on) > 1 {
		on = on[:1]
	}
	slices.SortStableFunc(on, func(a, b span) int { return a.start - b.start })
	var all []Change
	for _, x := range on {
		if !slices.Contains(all, *x.why) {
			all = append(all, *x.why)
		}
	}
	return all
}

// hidden is the text without values of variables that are neither App Mesh's nor Signet's: they
// may be secrets. It has the same lines.
func (d *document) hidden() string {
	var b strings.Builder
	at := 0
	hide := func(v *value) {
		b.WriteString(d.text[at:v.start])
		b.WriteString(`"…"` + strings.Repeat("\n", strings.Count(d.text[v.start:v.end], "\n")))
		at = v.end
	}
	var walk func(v *value)
	walk = func(v *value) {
		if name, of := variable(v); of != nil && !shown(name) {
			hide(of)
			return
		}
		for _, c := range v.children {
			switch mayBeSecret(c) {
			case all:
				leaves(c.val, hide)
			case functions:
				for _, item := range c.val.items() {
					if item.kind == mapping {
						walk(item)
					} else {
						hide(item)
					}
				}
			default:
				walk(c.val)
			}
		}
	}
	walk(d.root)
	return b.String() + d.text[at:]
}

// how much of a member is hidden.
type how int

const (
	nothing   how = iota
	functions     // what is not written out, or at an anchor: a variable may be in it
	all
)

func mayBeSecret(c child) how {
	switch strings.ToLower(c.name) {
	case "environment", "secrets":
		if c.val.kind == list {
			return functions
		}
		return all
	case "command", "entrypoint":
		var words []string
		for _, v := range c.val.items() {
			words = append(words, v.literal())
		}
		if !slices.ContainsFunc(commands, func(ours []string) bool { return slices.Equal(ours, words) }) {
			return all
		}
	case "options", "driveropts", "dockerlabels", "labels": // of the driver of a log or volume, which may have a token or a password
		return all
	}
	return nothing
}

// leaves calls do with all that has nothing below it.
func leaves(v *value, do func(*value)) {
	if len(v.children) == 0 {
		do(v)
	}
	for _, c := range v.children {
		leaves(c.val, do)
	}
}

// variable is the name and value of what has both, in either spelling.
func variable(v *value) (string, *value) {
	for _, keys := range [][2]string{{"name", "value"}, {"Name", "Value"}} {
		if of := v.get(keys[1]); of != nil && v.get(keys[0]) != nil {
			return v.get(keys[0]).literal(), of
		}
	}
	return "", nil
}

// shown are variables and properties of which everybody may know what they are.
func shown(name string) bool {
	_, ok := appmeshenv.Of(name)
	return ok || name == "http_proxy" || name == "no_proxy" || slices.Contains(properties, name) || strings.HasPrefix(name, "SIGNET_")
}

// indented is JSON with a line for each value.
func indented(text string) string {
	var b bytes.Buffer
	_ = json.Indent(&b, []byte(strings.TrimSpace(text)), "", "  ") // it was read as JSON
	return b.String() + "\n"
}
