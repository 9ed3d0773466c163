package identity

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Text that came from outside is judged here and not in internal/plain, which fits it for
// a terminal: identity imports nothing, so that what it checks can be read alone.

// Printable reports whether s can stand on one line of a log, a table or an
// error: valid UTF-8 without control, format, line-separator or private
// characters (U+2028 breaks lines too).
func Printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Abbreviate quotes s for an error message and bounds it: what came from
// outside must neither forge a log line nor fill the log.
func Abbreviate(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q...(%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}
