package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// oneValue are header fields whose value is one, commas and all: dates,
// credentials, texts for people and addresses (RFC 9110, 6265, 6750). Every
// other field is read as a list of values, as RFC 9110 5.3 lets whoever sends
// or forwards it write one in several lines or in one.
var oneValue = map[string]bool{
	"authorization": true, "proxy-authorization": true, "www-authenticate": true, "proxy-authenticate": true,
	"authentication-info": true, "proxy-authentication-info": true, "cookie": true, "set-cookie": true,
	"date": true, "expires": true, "last-modified": true, "if-modified-since": true, "if-unmodified-since": true, "if-range": true, "retry-after": true,
	"user-agent": true, "server": true, "from": true, "referer": true, "origin": true, "host": true, "location": true, "content-location": true,
	"content-type": true, "content-disposition": true, "content-length": true, "last-event-id": true,
}

// headerTerms are the headers with one element for each value, and with one for
// each line as it came. A rule that looks for a value in the former finds it in
// whichever way it was written (CVE-2026-26308 is the other way).
func headerTerms(headers map[string][]string) (values, lines *ast.Term) {
	asCame := make([][2]*ast.Term, 0, len(headers))
	split := false
	for name, list := range headers {
		asCame = append(asCame, [2]*ast.Term{ast.StringTerm(name), listTerm(list)})
		split = split || isSplit(name, list)
	}
	lines = ast.ObjectTerm(asCame...)
	if !split {
		return lines, lines
	}
	byValue := slices.Clone(asCame)
	for i, pair := range byValue {
		name := string(pair[0].Value.(ast.String))
		if list := headers[name]; isSplit(name, list) {
			byValue[i][1] = listTerm(listValues(list))
		}
	}
	return ast.ObjectTerm(byValue...), lines
}

func isSplit(name string, list []string) bool {
	return !oneValue[name] && slices.ContainsFunc(list, func(line string) bool { return strings.Contains(line, ",") })
}

// listValues are the elements of a list that came in these lines (RFC 9110
// 5.6.1): empty ones do not count, but a list of nothing is seen to be there.
func listValues(lines []string) []string {
	var out []string
	for _, line := range lines {
		for _, v := range splitList(line) {
			if v = strings.Trim(v, " \t"); v != "" {
				out = append(out, v)
			}
		}
	}
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

// splitList splits at the commas that stand in no quoted string. A quote begins
// one only where RFC 9110 has one: first in an element, or behind '='. One that
// does not end hides nothing: then every comma counts.
func splitList(line string) []string {
	var out []string
	begin, quoted := 0, false
	before := byte(',') // the last byte that is not white space
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\':
			i++
		case quoted:
			quoted = c != '"'
		case c == '"' && (before == ',' || before == '='):
			quoted = true
		case c == ',':
			out = append(out, line[begin:i])
			begin = i + 1
		}
		if c != ' ' && c != '\t' {
			before = c
		}
	}
	if quoted {
		return strings.Split(line, ",")
	}
	return append(out, line[begin:])
}
