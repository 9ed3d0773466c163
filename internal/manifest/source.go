package manifest

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// pos is a place in the file, from 1; col 0 means the whole line.
type pos struct{ line, col int }

// source is the text of one document and where it stood.
type source struct {
	file  string
	text  string
	first int // number of its first line in the file
}

// posOf maps a token's place in the document to the file's.
func (s *source) posOf(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{line: s.first}
	}
	return pos{line: s.first + t.Position.Line - 1, col: t.Position.Column}
}

func (s *source) errorAt(p pos, field, msg string) *Error {
	if name := placeholder.FindString(s.line(p)); name != "" {
		msg += " (" + name + " is a placeholder of a template: put its value there first, as envsubst does)"
	}
	return &Error{File: s.file, Line: p.line, Column: p.col, Field: field, Msg: msg, Excerpt: s.excerpt(p)}
}

// placeholder is what shells and their templates replace by a value.
var placeholder = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]{0,63}\}`)

// line is the one of a place, as far as an excerpt shows it.
func (s *source) line(p pos) string {
	lines := strings.Split(s.text, "\n")
	if at := p.line - s.first; p.col > 0 && at >= 0 && at < len(lines) {
		return Clip(lines[at])
	}
	return ""
}

// excerpt shows the line before, the line, and a caret under the column.
func (s *source) excerpt(p pos) string {
	lines := strings.Split(s.text, "\n")
	at := p.line - s.first
	if p.col <= 0 || at < 0 || at >= len(lines) {
		return ""
	}
	var b strings.Builder
	for i := max(0, at-1); i <= at; i++ {
		fmt.Fprintf(&b, "%4d | %s\n", s.first+i, Clip(lines[i]))
	}
	if p.col <= maxExcerpt {
		fmt.Fprintf(&b, "     | %s^\n", strings.Repeat(" ", p.col-1))
	}
	return b.String()
}

const maxExcerpt = 160 // runes of a source line that an excerpt shows

// Clip shortens text from outside to what an error shows of it, on one line.
func Clip(line string) string {
	line = strings.ReplaceAll(line, "\t", " ")
	if r := []rune(line); len(r) > maxExcerpt {
		return string(r[:maxExcerpt]) + "…"
	}
	return line
}
