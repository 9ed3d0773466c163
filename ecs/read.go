package ecs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"signet.example/internal/manifest"
	"signet.example/mesh/dialect/cloudformation"
)

// maxText bounds a text. A template of CloudFormation has 1 MB at most, a task definition 64 KiB.
const maxText = 1 << 20

// document is a text whose values have places.
type document struct {
	file string
	text string
	yaml bool
	made bool // by convert, so that its places are nobody's
	root *value
}

// read takes a text apart, JSON or YAML.
func read(file, text string) (*document, error) {
	text = strings.TrimPrefix(text, "\ufeff")
	d := &document{file: file, text: text}
	switch trimmed := strings.TrimLeft(text, " \t\r\n"); {
	case len(text) > maxText:
		return nil, fmt.Errorf("%s: has more than %d MiB", file, maxText>>20)
	case !utf8.ValidString(text):
		return nil, fmt.Errorf("%s: is not UTF-8", file)
	case trimmed == "":
		return nil, fmt.Errorf("%s: is empty", file)
	case trimmed[0] == '{' || trimmed[0] == '[':
		return d, d.readJSON(len(text) - len(trimmed))
	}
	d.yaml = true
	return d, d.readYAML()
}

func (d *document) readJSON(start int) error {
	var any json.RawMessage
	if err := json.Unmarshal([]byte(d.text), &any); err != nil {
		if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
			return d.errorAt(int(wrong.Offset)-1, "", "is no JSON: %v", err)
		}
		return fmt.Errorf("%s: %w", d.file, err)
	}
	s := scanner{d: d, at: start}
	var err error
	d.root, err = s.value()
	return err
}

// errorAt is a mistake at an offset of the text.
func (d *document) errorAt(at int, path, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if path != "" {
		msg = path + ": " + msg
	}
	if d.made {
		return fmt.Errorf("%s: %s", d.file, msg)
	}
	at = max(0, min(at, len(d.text)))
	line := 1 + strings.Count(d.text[:at], "\n")
	column := at - strings.LastIndexByte(d.text[:at], '\n')
	return fmt.Errorf("%s:%d:%d: %s", d.file, line, column, msg)
}

// scanner finds the places of values in brackets: JSON, and what YAML has of that form.
type scanner struct {
	d     *document
	at    int
	depth int
}

const maxDepth = 64

func (s *scanner) skip() {
	for text := s.d.text; s.at < len(text); s.at++ {
		switch c := text[s.at]; {
		case c == '#' && s.d.yaml:
			end := strings.IndexByte(text[s.at:], '\n')
			if end < 0 {
				end = len(text) - s.at
			}
			s.at += end - 1
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			return
		}
	}
}

// next is the byte that is to be read; 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.d.text) {
		return s.d.text[s.at]
	}
	return 0
}

func (s *scanner) value() (*value, error) {
	s.skip()
	v := &value{start: s.at}
	if s.depth++; s.depth > maxDepth {
		return nil, s.d.errorAt(s.at, "", "is nested more than %d deep", maxDepth)
	}
	defer func() { s.depth-- }()
	var err error
	switch c := s.next(); {
	case c == '{':
		v.kind = mapping
		err = s.children(v, '}')
	case c == '[':
		v.kind = list
		err = s.children(v, ']')
	case s.d.yaml && (c == '!' || c == '*' || c == '&'):
		for !strings.ContainsRune(" \t\r\n,]}", rune(s.next())) && s.next() != 0 {
			s.at++
		}
		if tag := s.at; c != '*' {
			if s.skip(); strings.ContainsRune(",]}", rune(s.next())) {
				s.at = tag
			} else if _, err = s.value(); err != nil {
				return nil, err
			}
		}
		v.kind = opaque
	default:
		v.text, err = s.scalar()
	}
	v.end = s.at
	if v.kind == mapping && len(v.children) == 1 && function(v.children[0].name) {
		v.kind, v.children = opaque, nil
	}
	return v, err
}

// function reports whether a mapping with this key alone is one of CloudFormation.
func function(name string) bool { return name == "Ref" || strings.HasPrefix(name, "Fn::") }

func (s *scanner) children(v *value, end byte) error {
	s.at++
	for {
		s.skip()
		if s.next() == end {
			s.at++
			return nil
		}
		c := child{start: s.at}
		if end == '}' {
			name, err := s.scalar()
			if err != nil {
				return err
			}
			if s.skip(); s.next() != ':' {
				return s.d.errorAt(s.at, "", "want a colon behind %q", manifest.Clip(name))
			}
			if s.at++; v.get(name) != nil {
				return s.d.errorAt(c.start, "", "%q is there twice", manifest.Clip(name))
			}
			c.name = name
		}
		var err error
		if c.val, err = s.value(); err != nil {
			return err
		}
		v.children = append(v.children, c)
		switch s.skip(); s.next() {
		case ',':
			s.at++
		case end:
		default:
			return s.d.errorAt(s.at, "", "want a comma or %q", end)
		}
	}
}

// scalar reads a text in quotes or without.
func (s *scanner) scalar() (string, error) {
	start := s.at
	quote := s.next()
	if quote != '"' && quote != '\'' {
		return s.plain()
	}
	for s.at++; s.at < len(s.d.text); s.at++ {
		switch c := s.d.text[s.at]; {
		case c == '\\' && quote == '"':
			s.at++
		case c == quote && quote == '\'' && s.at+1 < len(s.d.text) && s.d.text[s.at+1] == quote:
			s.at++
		case c == quote:
			s.at++
			return unquoted(s.d.text[start:s.at]), nil
		}
	}
	s.at = len(s.d.text)
	return "", s.d.errorAt(start, "", "a quote is not closed")
}

func (s *scanner) plain() (string, error) {
	start := s.at
	for s.at < len(s.d.text) {
		c := s.d.text[s.at]
		if c == '#' && s.at > start && strings.IndexByte(" \t", s.d.text[s.at-1]) >= 0 {
			break
		}
		if strings.IndexByte(",]}{[\n", c) >= 0 || c == ':' && (s.at+1 == len(s.d.text) || strings.IndexByte(" \t\n,]}", s.d.text[s.at+1]) >= 0) {
			break
		}
		s.at++
	}
	text := strings.TrimRight(s.d.text[start:s.at], " \t\r")
	if s.at = start + len(text); text == "" {
		return "", s.d.errorAt(start, "", "want a value")
	}
	return text, nil
}

func unquoted(text string) string {
	if text[0] == '\'' {
		return strings.ReplaceAll(text[1:len(text)-1], "''", "'")
	}
	var plain string
	if json.Unmarshal([]byte(text), &plain) != nil {
		return text[1 : len(text)-1]
	}
	return plain
}

// tags are those of CloudFormation's functions, read as the mappings that they are short for.
var tags = manifest.Form{Tags: cloudformation.Tags}
