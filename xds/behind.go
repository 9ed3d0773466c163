package xds

import (
	"regexp/syntax"
	"strings"
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
