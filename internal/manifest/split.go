package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of one document. The largest object of App Mesh, a router with 50
// routes of 10 targets and 10 headers, has about 16,000 tokens and is 12 deep. The
// parser is quadratic in keys, depth, paths and the blank lines behind a text, so all
// of these are bounded before it runs, and what aliases expand to after.
const (
	maxBytes  = 1 << 20
	maxTokens = 30_000
	maxDepth  = 64
	maxNodes  = 100_000
	// maxKey is of one key in bytes. The longest that Kubernetes takes, of a label or an
	// annotation, has 317.
	maxKey = 512
	// maxPaths is how many bytes the paths of all nodes may have at most: each repeats the
	// keys above it, and the parser keeps them.
	maxPaths = 64 << 20
	// maxBlank is the document's bytes times its most blank lines in a row: so often the
	// parser copies the text that they are behind.
	maxBlank = 16 << 20
	// maxFileErrors is where a hopeless file is not read any further.
	maxFileErrors = 1000
)

// Limits of one file. What a document costs beside its bytes is paid maxDocuments times: a
// mesh of 10,000 virtual nodes, each with router, service, binding and entry, has
// 50,000; what renders templates leaves some empty ones. The work is the sum of the
// squares of the documents' tokens: 10 of the most that one may have, 40 of the largest routers.
const (
	maxDocuments = 100_000
	maxEmpty     = 10_000
	maxWork      = 10 * maxTokens * maxTokens
)

// Format selects which manifests are read; documents of other groups are foreign.
type Format struct {
	// Versions are the accepted values of apiVersion, "group/version". Another
	// version of one of these groups is refused by name, not foreign.
	Versions []string
	// Reject, if set, returns why a text is not read at all, "" if it is: one error
	// about a whole file says more than one about each thing in it.
	Reject func(text string) string
	// Unfilled, if set, returns a string as its author wrote it, and the names of the
	// placeholders in it that have no value: it is not known what the string is.
	Unfilled func(text string) (written string, names []string)
}

// Split takes a YAML stream (or one JSON text) apart into its documents, none
// of them understood yet. A v1 List, as kubectl writes it, becomes its items.
// The documents that could be read are returned beside the errors of the rest.
func (f *Format) Split(file string, content []byte) ([]*Document, error) {
	var docs []*Document
	var errs Errors
	read, empty, work := 0, 0, 0
	for p := range pieces(content) {
		src := &source{file: file, text: p.text, first: p.first, unfilled: f.Unfilled}
		stop := ""
		switch {
		case len(errs) >= maxFileErrors:
			errs, stop = errs[:maxFileErrors], "the file has too many mistakes; it is not read further"
		case empty > maxEmpty:
			stop = fmt.Sprintf("the file has more than %d empty documents; it is not read further", maxEmpty)
		case read >= maxDocuments:
			stop = fmt.Sprintf("the file has more than %d documents; it is not read further: apply it in parts", maxDocuments)
		case work > maxWork:
			stop = "the file has too many large documents; it is not read further: apply it in parts"
		}
		if stop != "" {
			return docs, append(errs, src.errorAt(pos{line: p.first}, "", stop))
		}
		ds, err := f.parse(src)
		read++
		if len(ds) == 0 && err == nil {
			empty++
		}
		work += src.tokens * src.tokens
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

// pieces cuts at document markers. No piece keeps the others in memory. YAML 1.2 section 9.1.2 forbids a line that
// starts with one inside any scalar, so cutting by lines is exact, and one
// broken document does not hide the mistakes of the next.
func pieces(content []byte) iter.Seq[piece] {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	return func(yield func(piece) bool) {
		start, first, line := 0, 1, 1
		for at := 0; at < len(text); line++ {
			end := len(text)
			if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
				end = at + i + 1
			}
			if at > start && isMarker(text[at:end]) {
				if !yield(piece{strings.Clone(text[start:at]), first}) {
					return
				}
				start, first = at, line
			}
			at = end
		}
		if start > 0 {
			text = strings.Clone(text[start:])
		}
		yield(piece{text, first})
	}
}

func isMarker(line string) bool {
	rest, ok := strings.CutPrefix(line, "---")
	return ok && (rest == "" || strings.ContainsRune(" \t\n", rune(rest[0])))
}

func (f *Format) parse(src *source) ([]*Document, error) {
	root := src.simple()
	if root == nil {
		if err := src.checkText(); err != nil || src.blank() {
			return nil, err
		}
	}
	if f.Reject != nil {
		if why := f.Reject(src.text); why != "" {
			return nil, src.errorAt(pos{line: src.first}, "", why)
		}
	}
	if root != nil {
		return f.documents(src, root, nil)
	}
	body, err := src.parse()
	if body == nil || err != nil {
		return nil, err
	}
	root, wrong := newTree(src).build(body)
	if root == nil {
		return nil, wrong
	}
	return f.documents(src, root, wrong)
}

// blank reports whether there is nothing but comments behind the document's marker.
func (s *source) blank() bool {
	for line := range strings.SplitSeq(strings.TrimPrefix(s.text, "---"), "\n") {
		if line = strings.TrimLeft(line, " \t"); line != "" && line[0] != '#' {
			return false
		}
	}
	return true
}

// checkText refuses what the parser should not see.
func (s *source) checkText() error {
	if len(s.text) > maxBytes {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has %d bytes; at most %d are read", len(s.text), maxBytes))
	}
	blank, most := 0, 0
	for line, text := range strings.Split(s.text, "\n") {
		if blank++; strings.Trim(text, " \t") != "" {
			blank = 0
		}
		most = max(most, blank)
		if !utf8.ValidString(text) {
			return s.errorAt(pos{line: s.first + line}, "", "is not UTF-8")
		}
		// YAML 1.2 section 5.1: c-printable.
		bad := strings.IndexFunc(text, func(r rune) bool { return r != '\t' && (r < ' ' || r >= 0x7f && r <= 0x9f && r != 0x85) })
		if bad >= 0 {
			return s.errorAt(pos{line: s.first + line, col: 1 + utf8.RuneCountInString(text[:bad])}, "", "has a control character")
		}
	}
	if most*len(s.text) > maxBlank {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has %d blank lines in a row, which is too much for its %d bytes", most, len(s.text)))
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
	if s.tokens = len(tokens); len(tokens) > maxTokens {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has %d tokens; at most %d are read", len(tokens), maxTokens))
	}
	if path := longestPath(tokens); path*len(tokens) > maxPaths {
		return s.errorAt(pos{line: s.first}, "", fmt.Sprintf("document has too long keys for its %d tokens", len(tokens)))
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

// longestPath is more than the bytes that any path has: of as many keys as can be below
// each other, the longest ones.
func longestPath(tokens token.Tokens) int {
	var keys []int
	for i, t := range tokens {
		if t.Type == token.MappingValueType && i > 0 {
			keys = append(keys, len(tokens[i-1].Value))
		}
	}
	slices.Sort(keys)
	sum := 0
	for _, n := range keys[max(0, len(keys)-maxDepth):] {
		sum += n
	}
	return sum
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
