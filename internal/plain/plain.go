// Package plain makes text that came from outside fit for an operator's
// terminal, log or table: what is printed is what is there. Control characters
// move the cursor, bidirectional ones turn the order of what follows around,
// and characters without width make two names look like one.
package plain

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Line returns s with every rune that is not shown as itself on one line replaced by U+FFFD.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if !Shown(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// Clip is Line of at most the first most bytes, and … where there were more.
func Clip(s string, most int) string {
	if len(s) <= most {
		return Line(s)
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return Line(s[:most]) + "…"
}

// maxText is how many bytes of a text are kept that somebody outside wrote; a SPIFFE ID has as many.
const maxText = 2048

// Text is Clip for what an agent or operator wrote and a terminal will show (A21).
func Text(s string) string { return Clip(s, maxText) }

// noise is what gRPC puts before the message of a status, and of a failed dial.
var noise = regexp.MustCompile(`rpc error: code = \w+ desc = |connection error: desc = "transport: Error while dialing: (.*?)"`)

// Cause returns the text of an error without gRPC's own words, which say nothing to who reads it.
func Cause(text string) string { return noise.ReplaceAllString(text, "$1") }

// UTC is a time as people are told it.
func UTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Shown reports whether r is shown as itself: a graphic character or a plain
// space. unicode.IsPrint leaves out controls, line separators, private use, and
// bidirectional and zero-width format characters; the letters and marks that
// Unicode has renderers ignore, and a blank that counts as a symbol, remain.
func Shown(r rune) bool {
	return unicode.IsPrint(r) && r != '\u2800' &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
