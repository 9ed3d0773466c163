package authz

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escape makes outside text safe to log, print and embed: one line, no
// terminal control, no character that turns the reading direction
// (A21), and no longer than max bytes of the original.
func escape(s string, max int) string {
	cut := len(s) > max
	if cut {
		s = s[:max]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) { // not in the middle of a rune
			s = s[:len(s)-1]
		}
		if r, n := utf8.DecodeLastRuneInString(s); r == utf8.RuneError && n == 1 {
			s = s[:len(s)-1]
		}
	}
	if !cut && !strings.ContainsFunc(s, mustEscape) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		case mustEscape(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += n
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}

// mustEscape: everything that is not a graphic character or a plain space.
// unicode.IsPrint leaves out controls, U+2028/9, bidirectional and zero-width
// format characters. The backslash is escaped so that an escape is one.
func mustEscape(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }
