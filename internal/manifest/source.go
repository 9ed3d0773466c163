package manifest

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// pos is a place in the file, from 1; col 0 means the whole line.
type pos struct {
	line, col int
	src       *source // of a [Node]'s value, which may stand in another text than what is around it
}

// source is the text of one document and where it stood.
type source struct {
	file  string
	text  string
	first int // number of its first line in the file

	tokens int // that it has, once it was parsed

	unfilled func(string) (string, []string) // of the format; may be nil

	starts  []int                    // of its lines, where values are taken out of it
	nodes   bool                     // values are taken out of it: each place names it
	written func(path string) string // what a field is called in the text, where that is something else
}

// posOf maps a token's place in the document to the file's.
func (s *source) posOf(t *token.Token) pos {
	p := pos{line: s.first}
	if t != nil && t.Position != nil {
		p = pos{line: s.first + t.Position.Line - 1, col: t.Position.Column}
	}
	if s.nodes {
		p.src = s
	}
	return p
}

func (s *source) errorAt(p pos, field, msg string) *Error {
	if s.written != nil {
		field = s.written(field)
	}
	if p.src != nil {
		s = p.src
	}
	if name := placeholder.FindString(s.line(p)); name != "" && !s.nodes { // in another form it may mean something else
		msg += " (" + name + " is a placeholder of a template: put its value there first, as envsubst does)"
	}
	return &Error{File: s.file, Line: p.line, Column: p.col, Field: field, Msg: msg, Excerpt: s.excerpt(p)}
}

// placeholder is what shells and their templates replace by a value.
var placeholder = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]{0,63}\}`)

// line is the one of a place, as far as an excerpt shows it.
func (s *source) line(p pos) string {
	if p.col <= 0 {
		return ""
	}
	_, line, _ := s.lines(p.line)
	return Clip(line)
}

// lines are the text of a line of the file and of the one before it. A document has
// many mistakes, and each is shown: so the text is not taken apart for one.
func (s *source) lines(number int) (before, line string, ok bool) {
	rest, ok := s.text, number >= s.first
	at := s.first
	if i := number - 1 - s.first; i > 0 && i < len(s.starts) {
		rest, at = s.text[s.starts[i]:], number-1
	}
	for ; at < number && ok; at++ {
		before, rest, ok = strings.Cut(rest, "\n")
	}
	line, _, _ = strings.Cut(rest, "\n")
	return before, line, ok
}

// startLines notes where lines start, for a text of which more is said than its mistakes.
func (s *source) startLines() {
	s.starts = []int{0}
	for i := range len(s.text) {
		if s.text[i] == '\n' {
			s.starts = append(s.starts, i+1)
		}
	}
}

// excerpt shows the line before, the line, and a caret under the column.
func (s *source) excerpt(p pos) string {
	before, line, ok := s.lines(p.line)
	if p.col <= 0 || !ok {
		return ""
	}
	var b strings.Builder
	if p.line > s.first {
		fmt.Fprintf(&b, "%4d | %s\n", p.line-1, Clip(before))
	}
	fmt.Fprintf(&b, "%4d | %s\n", p.line, Clip(line))
	if p.col <= maxExcerpt {
		fmt.Fprintf(&b, "     | %s^\n", strings.Repeat(" ", p.col-1))
	}
	return b.String()
}

const maxExcerpt = 160 // runes of a source line that an excerpt shows

// Clip shortens text from outside to what an error shows of it, on one line.
func Clip(line string) string {
	end, runes := len(line), 0
	for at := range line {
		if runes++; runes > maxExcerpt {
			end = at
			break
		}
	}
	clipped := strings.ReplaceAll(line[:end], "\t", " ")
	if end < len(line) {
		return clipped + "…"
	}
	return clipped
}
