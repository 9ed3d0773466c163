package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of one document. The largest object of App Mesh, a router with 50
// routes of 10 targets and 10 headers, has about 16,000 tokens and is 12 deep. The
// parser is quadratic in keys and depth, so tokens and nesting are bounded
// before it runs, and what aliases expand to after.
const (
	maxBytes  = 1 << 20
	maxTokens = 30_000
	maxDepth  = 64
	maxNodes  = 100_000
	// maxFileErrors is where a hopeless file is not read any further.
	maxFileErrors = 1000
)

// Format selects which manifests are read; documents of other groups are foreign.
type Format struct {
	// Versions are the accepted values of apiVersion, "group/version". Another
	// version of one of these groups is refused by name, not foreign.
	Versions []string
	// Reject, if set, returns why a text is not read at all, "" if it is: one error
	// about a whole file says more than one about each thing in it.
	Reject func(text string) string
}

// Split takes a YAML stream (or one JSON text) apart into its documents, none
// of them understood yet. A v1 List, as kubectl writes it, becomes its items.
// The documents that could be read are returned beside the errors of the rest.
func (f *Format) Split(file string, content []byte) ([]*Document, error) {
	var docs []*Document
	var errs Errors
	for _, p := range pieces(content) {
		if len(errs) >= maxFileErrors {
			src := &source{file: file, text: p.text, first: p.first}
			return docs, append(errs[:maxFileErrors], src.errorAt(pos{line: p.first}, "", "the file has too many mistakes; it is not read further"))
		}
		ds, err := f.parse(file, p)
		docs = append(docs, ds...)
		errs = append(errs, AsErrors(err)...)
	}
	return docs, errs.OrNil()
}

// piece is the text of one document and the number of its first line.
type piece struct {
	text  string
	first int
}

// pieces cuts at document markers. YAML 1.2 section 9.1.2 forbids a line that
// starts with one inside any scalar, so cutting by lines is exact, and one
// broken document does not hide the mistakes of the next.
func pieces(content []byte) []piece {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	var out []piece
	start, first, line := 0, 1, 1
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if at > start && isMarker(text[at:end]) {
			out = append(out, piece{text[start:at], first})
			start, first = at, line
		}
		at = end
	}
	return append(out, piece{text[start:], first})
}

func isMarker(line string) bool {
	rest, ok := strings.CutPrefix(line, "---")
	return ok && (rest == "" || strings.ContainsRune(" \t\n", rune(rest[0])))
}

func (f *Format) parse(file string, p piece) ([]*Document, error) {
	src := &source{file: file, text: p.text, first: p.first}
	if err := src.checkText(); err != nil {
		return nil, err
	}
	if f.Reject != nil {
		if why := f.Reject(p.text); why != "" {
			return nil, src.errorAt(pos{line: p.first}, "", why)
		}
	}
	body, err := src.parse()
	if body == nil || err != nil {
		return nil, err
	}
	root, err := newTree(src).build(body)
	if err != nil && !f.isForeign(root) { // of a foreign document only the name is read
		return nil, err
	}
	return f.documents(src, root)
}

// checkText refuses what the parser should not see.
func (s *source) checkText() error {
	if len(s.text) > maxBytes {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has %d bytes; at most %d are read", len(s.text), maxBytes))
	}
	for line, text := range strings.Split(s.text, "\n") {
		if !utf8.ValidString(text) {
			return s.errorAt(pos{line: s.first + line}, "", "is not UTF-8")
		}
		// YAML 1.2 section 5.1: c-printable.
		bad := strings.IndexFunc(text, func(r rune) bool { return r != '\t' && (r < ' ' || r >= 0x7f && r <= 0x9f && r != 0x85) })
		if bad >= 0 {
			return s.errorAt(pos{line: s.first + line, col: 1 + utf8.RuneCountInString(text[:bad])}, "", "has a control character")
		}
	}
	return nil
}

// parse returns the document's root node, nil for an empty document.
func (s *source) parse() (body ast.Node, err error) {
	// The parser is not ours and its input is anybody's; a panic there is a
	// refused document, not a dead server.
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, s.errorAt(pos{line: s.first}, "", fmt.Sprintf("cannot be parsed: %v", r))
		}
	}()
	tokens := lexer.Tokenize(s.text)
	if err := s.checkTokens(tokens); err != nil {
		return nil, err
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are ours to report, all of them
	if err != nil {
		return nil, s.syntaxError(err)
	}
	for _, d := range f.Docs {
		switch {
		case d.Body == nil:
		case body != nil:
			return nil, s.errorAt(s.posOf(d.Body.GetToken()), "", "a second document starts without ---")
		default:
			body = d.Body
		}
	}
	return body, nil
}

// checkTokens bounds what the parser recurses on: brackets, and indicators
// that nest on one line. Nesting by indentation needs bytes by the square.
func (s *source) checkTokens(tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has %d tokens; at most %d are read", len(tokens), maxTokens))
	}
	flow, inline, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			inline, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.DirectiveType:
			return s.errorAt(s.posOf(t), "", "YAML directives are not accepted")
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType, token.AnchorType, token.TagType:
			if flow <= 0 {
				inline++
			}
		}
		if flow > maxDepth || inline > maxDepth {
			return s.errorAt(s.posOf(t), "", fmt.Sprintf("is nested more than %d deep", maxDepth))
		}
	}
	return nil
}

func (s *source) syntaxError(err error) error {
	var located interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &located) {
		return s.errorAt(s.posOf(located.GetToken()), "", located.GetMessage())
	}
	return s.errorAt(pos{line: s.first}, "", err.Error())
}
