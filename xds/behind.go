package xds

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

// behind is what follows a text in what an expression takes: of /users/[0-9]+ behind
// /users/ it is [0-9]+. It is false where the expression can take something that does
// not begin with the text, or does not show that it cannot.
func behind(expression, text string) (string, bool) {
	r, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return "", false
	}
	rest, ok := cut(r, text)
	if !ok || strings.Contains(rest, `\x{`) { // what is no byte is not Envoy's to read
		return "", false
	}
	return "(?:" + rest + ")", true
}

// cut takes a text from the front of an expression.
func cut(r *syntax.Regexp, text string) (string, bool) {
	switch r.Op {
	case syntax.OpLiteral:
		rest, ok := strings.CutPrefix(string(r.Rune), text)
		if !ok || r.Flags&syntax.FoldCase != 0 {
			return "", false
		}
		left := *r
		left.Rune = []rune(rest)
		if rest == "" {
			left.Op = syntax.OpEmptyMatch
		}
		return left.String(), true
	case syntax.OpConcat:
		rest, ok := cut(r.Sub[0], text)
		if !ok {
			return "", false
		}
		left := *r
		left.Sub = r.Sub[1:]
		return "(?:" + rest + ")" + left.String(), true
	case syntax.OpCapture:
		return cut(r.Sub[0], text)
	case syntax.OpAlternate:
		var each []string
		for _, s := range r.Sub {
			rest, ok := cut(s, text)
			if !ok {
				return "", false
			}
			each = append(each, rest)
		}
		return "(?:" + strings.Join(each, "|") + ")", true
	}
	return "", false
}

// beforeQuery takes, of a path with its query, what an expression takes of the path: not a
// part of it is met by what a caller wrote behind the question mark.
func beforeQuery(expression string) string {
	r, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return expression // which Envoy refuses as well
	}
	return "(?:" + withoutMark(r).String() + ")" + anyQuery
}

// withoutMark is an expression that takes no question mark, and whose end of the text is the
// end of the path.
func withoutMark(r *syntax.Regexp) *syntax.Regexp {
	switch r.Op {
	case syntax.OpAnyChar:
		return class(0, unicode.MaxRune)
	case syntax.OpAnyCharNotNL:
		return class(0, '\n'-1, '\n'+1, unicode.MaxRune)
	case syntax.OpCharClass:
		return class(r.Rune...)
	case syntax.OpLiteral:
		if slices.Contains(r.Rune, '?') {
			return &syntax.Regexp{Op: syntax.OpNoMatch}
		}
	case syntax.OpEndText, syntax.OpEndLine:
		end, _ := syntax.Parse(anyQuery+`\z`, syntax.Perl) // a constant
		return end
	}
	out := *r
	out.Sub = nil
	for _, s := range r.Sub {
		out.Sub = append(out.Sub, withoutMark(s))
	}
	return &out
}

// class is a class of characters, as pairs of first and last, without the question mark.
func class(pairs ...rune) *syntax.Regexp {
	out := &syntax.Regexp{Op: syntax.OpCharClass}
	add := func(first, last rune) {
		if first <= last {
			out.Rune = append(out.Rune, first, last)
		}
	}
	for pair := range slices.Chunk(pairs, 2) {
		first, last := pair[0], pair[1]
		if first <= '?' && '?' <= last {
			add(first, '?'-1)
			first = '?' + 1
		}
		add(first, last)
	}
	if len(out.Rune) == 0 {
		out.Op = syntax.OpNoMatch
	}
	return out
}
