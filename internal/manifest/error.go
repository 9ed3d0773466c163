package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxErrors is how many mistakes of one document are reported.
const MaxErrors = 100

// Error is one mistake in one document, told so that it can be found.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 where there is none
	Field        string // "spec.listeners[0].portMapping.port", "" for a whole document
	Msg          string
	Excerpt      string // source lines with a caret, "" where there is none

	// Dangling is what the document says of something that does not exist, as "route r
	// refers to virtualNode n"; "" for every other mistake.
	Dangling string
	// Object is what the mistake is of, as messages name it; "" where that is the document.
	Object string
	// Exported is true for a field that an API server wrote.
	Exported bool
	// Unknown is true for a field that there is not. What stands beside it was read.
	Unknown bool
	// Meant is the field that an unknown one probably means; "" where none is like it.
	Meant string
	// Unfilled are the placeholders without a value in what stands at the place: it may
	// be right with one.
	Unfilled []string
	// Unknowable is true where nothing is wrong but that the value cannot be known, or
	// that what stands for it keeps no rule.
	Unknowable bool
	// Lacks is the key that is missing where that is the mistake; "" for every other one.
	Lacks string
	// Cause is for callers that decide by what is wrong; nil for every other mistake. Msg says it.
	Cause error
}

// Unwrap gives errors.As the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Error is one line: where, which field, what.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		if e.Line > 0 && e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors is every mistake found, in the order of the source.
type Errors []*Error

// Error is one line for each mistake.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As and errors.Is each mistake.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// AsErrors lists the mistakes in err; an error from elsewhere becomes one
// without a place.
func AsErrors(err error) Errors {
	if err == nil {
		return nil
	}
	if es, ok := errors.AsType[Errors](err); ok {
		return es
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return Errors{e}
	}
	return Errors{{Msg: err.Error()}}
}

// OrNil is es as an error, nil where there are none: an empty list in an error
// would not equal nil.
func (es Errors) OrNil() error {
	if len(es) == 0 {
		return nil
	}
	return es
}

// With adds mistakes that were found in what could be read, except those that may follow
// from one that is known: of the same field, of one above it or below it.
func (es Errors) With(more Errors) Errors {
	all := slices.Clone(es)
	for _, e := range more {
		if !slices.ContainsFunc(es, func(known *Error) bool { return within(e.Field, known.Field) || within(known.Field, e.Field) }) {
			all = append(all, e)
		}
	}
	all.Sort()
	return all
}

// within reports whether a field is the one at path or below it.
func within(field, path string) bool {
	rest, ok := strings.CutPrefix(field, path)
	return ok && (path == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Sort orders the mistakes as the source has them.
func (es Errors) Sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
