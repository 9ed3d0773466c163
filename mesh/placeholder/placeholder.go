// Package placeholder fills what a template leaves open: ${VAR}, {{ .VAR }} or {{VAR}},
// in YAML $VAR of upper case, and in JSON $VAR in the place of a value. A value whose name has a hyphen stands
// for that word wherever it stands alone, as walkthroughs have such as my-service-ARN. It works on text, before anything is
// parsed, since some templates are no YAML until then.
//
// What has no value becomes a mark, one plain word that YAML and JSON take for a string;
// [Filled.Written] turns it back when a string was read. [Filled.Origin] leads from a
// place in the filled text to the one in the file.
//
// It must not know what is in the text. Its input is anybody's: what it makes is bounded.
package placeholder

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Bounds of what is made.
const (
	maxValue  = 64 << 10 // bytes of one value
	maxFilled = 16 << 20 // bytes of one text
	maxUses   = 100_000  // placeholders of one text
)

// Form is what a text is.
type Form int

// The forms of text.
const (
	YAML Form = iota
	JSON      // values are put where they stand: escaped in a string, as a value elsewhere
)

// Use is one placeholder of a text.
type Use struct {
	Name    string
	Written string // as it stands there
}

// edit is one placeholder, by bytes: in the filled text and in the file.
type edit struct{ at, end, from, to int }

// Filled is a text whose placeholders have their values, or marks.
type Filled struct {
	// Text is to be parsed.
	Text string
	// Unfilled are those without a value, as often as they are there.
	Unfilled []Use

	// Actions is set where a template has more than placeholders, such as {{ if … }}, which
	// stand as they are.
	Actions bool
	// Names are those of all placeholders, each once.
	Names []string

	source string
	edits  []edit
	lines  lines // of Text
	origin lines // of source
}

// A mark is the number of an unfilled use between two characters that stand for nothing
// in Unicode; a text that has them already is refused.
const (
	markStart = '\ue000'
	markEnd   = '\ue001'
)

// patterns are made when the first text is read: compiled, they are the largest part of what a
// command does before its own work, and few commands read any.
var patterns = sync.OnceValue(func() (p struct{ braced, inYAML, unbraced, actions, mark *regexp.Regexp }) {
	// Names as shells have them; of templates' those with a path, as .Values.port.
	const braced = `\$\{([A-Za-z_][A-Za-z0-9_]{0,127})\}|\{\{-?[ \t]{0,16}\.?([A-Za-z_][A-Za-z0-9_.]{0,127})[ \t]{0,16}(?:\|[^{}\n]{0,200})?-?\}\}`
	p.braced = regexp.MustCompile(braced)
	p.inYAML = regexp.MustCompile(braced + `|\$([A-Z][A-Z0-9_]{0,127})\b`)
	p.unbraced = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]{0,127})`)
	p.actions = regexp.MustCompile(`\{\{-?[ \t]{0,16}(?:if|else|end|range|with|define|block|template|include)\b`)
	p.mark = regexp.MustCompile(string(markStart) + `([0-9]{1,6})` + string(markEnd))
	return p
})

var name = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`) })

// CheckName returns what is wrong with the name of a value.
func CheckName(s string) error {
	if !name().MatchString(s) {
		return fmt.Errorf("%q is not a placeholder's name: letters, digits, _, hyphens and dots, as in ${MESH_NAME} or {{ .Values.port }}", s)
	}
	return nil
}

// CheckValue returns what is wrong with a value.
func CheckValue(s string) error {
	switch {
	case len(s) > maxValue:
		return fmt.Errorf("has %d bytes; at most %d are put in", len(s), maxValue)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(s, isMark):
		return errMarks
	}
	return nil
}

var errMarks = fmt.Errorf("has the character %U or %U, which stands for a placeholder here", markStart, markEnd)

func isMark(r rune) bool { return r == markStart || r == markEnd }

// Fill puts values in. Those of values must have passed CheckValue.
func Fill(text string, form Form, values map[string]string) (*Filled, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	if strings.ContainsFunc(text, isMark) {
		return nil, errMarks
	}
	f := &Filled{source: text, Actions: patterns().actions.MatchString(text)}
	var b strings.Builder
	last, seen := 0, map[string]bool{}
	for _, p := range find(text, form, values) {
		if len(f.edits) >= maxUses {
			return nil, fmt.Errorf("has more than %d placeholders", maxUses)
		}
		if !seen[p.name] {
			seen[p.name] = true
			f.Names = append(f.Names, p.name)
		}
		b.WriteString(text[last:p.from])
		at := b.Len()
		b.WriteString(f.put(p, form, values))
		f.edits = append(f.edits, edit{at: at, end: b.Len(), from: p.from, to: p.to})
		if last = p.to; b.Len() > maxFilled {
			return nil, fmt.Errorf("has more than %d MiB with its placeholders filled", maxFilled>>20)
		}
	}
	b.WriteString(text[last:])
	f.Text = b.String()
	f.lines, f.origin = linesOf(f.Text), linesOf(f.source)
	return f, nil
}

// found is a placeholder, by bytes of the text.
type found struct {
	name     string
	from, to int
	inString bool // of JSON
}

func (f *Filled) put(p found, form Form, values map[string]string) string {
	value, ok := values[p.name]
	if !ok {
		value = string(markStart) + strconv.Itoa(len(f.Unfilled)) + string(markEnd)
		f.Unfilled = append(f.Unfilled, Use{Name: p.name, Written: f.source[p.from:p.to]})
		if form == JSON && !p.inString {
			return `"` + value + `"`
		}
		return value
	}
	switch {
	case form == YAML, !p.inString && json.Valid([]byte(value)):
		return value
	case p.inString:
		quoted := quote(value)
		return quoted[1 : len(quoted)-1]
	}
	return quote(value)
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("internal error: a string is no JSON: " + err.Error())
	}
	return string(b)
}

// find lists the placeholders of a text in their order.
func find(text string, form Form, values map[string]string) []found {
	list := words(text, values)
	inText := patterns().braced
	if form == YAML {
		inText = patterns().inYAML
	}
	for _, m := range inText.FindAllStringSubmatchIndex(text, maxUses+1) {
		p := found{from: m[0], to: m[1]}
		for i := 2; i < len(m); i += 2 {
			if m[i] >= 0 {
				p.name = text[m[i]:m[i+1]]
			}
		}
		if p.name == "end" || p.name == "else" || p.name == "break" || p.name == "continue" {
			continue // actions of a template, which are no names
		}
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b found) int { return a.from - b.from })
	list = slices.CompactFunc(list, func(next, last found) bool { return next.from < last.to }) // a word in another one's name
	if form == YAML {
		return list
	}
	return inJSON(text, list)
}

// words lists where values with a hyphen in their name stand as words.
func words(text string, values map[string]string) []found {
	var names []string
	for name := range values {
		if strings.Contains(name, "-") {
			names = append(names, regexp.QuoteMeta(name))
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) // the longer one first
	var list []found
	for _, m := range regexp.MustCompile(`(?:^|[^A-Za-z0-9_.-])(`+strings.Join(names, "|")+`)\b`).FindAllStringSubmatchIndex(text, maxUses+1) {
		if end := m[3]; end < len(text) && strings.ContainsRune("-._", rune(text[end])) {
			continue // a longer word
		}
		list = append(list, found{name: text[m[2]:m[3]], from: m[2], to: m[3]})
	}
	return list
}

// inJSON adds what is bare, and notes what stands in a string.
func inJSON(text string, list []found) []found {
	var out []found
	inString, next := false, 0
	for i := 0; i < len(text) && len(out) <= maxUses; i++ {
		if next < len(list) && list[next].from == i {
			list[next].inString = inString
			out = append(out, list[next])
			i = list[next].to - 1
			next++
			continue
		}
		switch c := text[i]; {
		case c == '\\' && inString:
			i++
			for next < len(list) && list[next].from <= i {
				next++ // its $ is escaped
			}
		case c == '"':
			inString = !inString
		case c == '$' && !inString:
			if m := patterns().unbraced.FindStringSubmatch(text[i:]); m != nil {
				out = append(out, found{name: m[1], from: i, to: i + len(m[0])})
				i += len(m[0]) - 1
			}
		}
	}
	return out
}

// Written is a string as the file has it, marks turned back, and the names of the
// placeholders in it that have no value.
func (f *Filled) Written(s string) (written string, unfilled []string) {
	if len(f.Unfilled) == 0 || !strings.ContainsRune(s, markStart) {
		return s, nil
	}
	written = patterns().mark.ReplaceAllStringFunc(s, func(m string) string {
		n, err := strconv.Atoi(strings.Trim(m, string(markStart)+string(markEnd)))
		if err != nil || n >= len(f.Unfilled) {
			return m
		}
		use := f.Unfilled[n]
		if !slices.Contains(unfilled, use.Name) {
			unfilled = append(unfilled, use.Name)
		}
		return use.Written
	})
	return written, unfilled
}

// Origin is the place in the file of one in the filled text, lines and columns from 1 by
// characters; column 0 is a whole line.
func (f *Filled) Origin(line, column int) (int, int) {
	if line < 1 || len(f.edits) == 0 {
		return line, column
	}
	at := f.lines.offset(f.Text, line, max(column, 1))
	i, _ := slices.BinarySearchFunc(f.edits, at, func(e edit, at int) int { return e.at - at })
	if i == len(f.edits) || f.edits[i].at > at {
		i-- // the last one that begins before it
	}
	if i >= 0 {
		e := f.edits[i]
		if at < e.end || at == e.at {
			at = e.from
		} else {
			at += e.to - e.end
		}
	}
	l, c := f.origin.place(f.source, at)
	if column < 1 {
		c = 0
	}
	return l, c
}

// lines leads from places to offsets of a text and back. A line may be the whole text, so
// that no line is walked through for one place.
type lines struct {
	starts []int // at which lines begin
	before []int // characters before each step bytes
}

const step = 4096

func linesOf(text string) lines {
	ls := lines{starts: []int{0}}
	n := 0
	for i := 0; i < len(text); i++ {
		if i%step == 0 {
			ls.before = append(ls.before, n)
		}
		if text[i] == '\n' {
			ls.starts = append(ls.starts, i+1)
		}
		n += begins(text[i])
	}
	ls.before = append(ls.before, n)
	return ls
}

// begins is 1 for the first byte of a character of UTF-8.
func begins(b byte) int {
	if b&0xc0 == 0x80 {
		return 0
	}
	return 1
}

// characters are those before an offset.
func (ls lines) characters(text string, at int) int {
	n := ls.before[at/step]
	for i := at / step * step; i < at; i++ {
		n += begins(text[i])
	}
	return n
}

// offset is that of a place, the end of the line where it is shorter.
func (ls lines) offset(text string, line, column int) int {
	if line > len(ls.starts) {
		return len(text)
	}
	end := len(text)
	if line < len(ls.starts) {
		end = ls.starts[line] - 1
	}
	want := ls.characters(text, ls.starts[line-1]) + column - 1
	i, _ := slices.BinarySearch(ls.before, want+1)
	at := max((i-1)*step, ls.starts[line-1]) // before it are not more than wanted
	n := ls.characters(text, at)
	for at < end && (n < want || begins(text[at]) == 0) {
		n += begins(text[at])
		at++
	}
	return at
}

func (ls lines) place(text string, at int) (line, column int) {
	at = min(at, len(text))
	i, exact := slices.BinarySearch(ls.starts, at)
	if !exact {
		i--
	}
	return i + 1, 1 + ls.characters(text, at) - ls.characters(text, ls.starts[i])
}
