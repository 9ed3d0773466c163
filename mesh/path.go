package mesh

import (
	"regexp"
	"strings"
)

// PathMatch is which paths are taken: Exact, those that begin with Prefix, or those that
// Regex (RE2) matches as a whole; each where all three are empty.
type PathMatch struct{ Prefix, Exact, Regex string }

// PathMatch is what a match asks of the path.
func (m Match) PathMatch() PathMatch {
	p := PathMatch{Prefix: m.Prefix, Exact: m.Path, Regex: m.PathRegex}
	if p.Prefix == "/" { // each begins so
		p.Prefix = ""
	}
	return p
}

// Takes reports whether a path is taken.
func (p PathMatch) Takes(path string) bool {
	switch {
	case p.Exact != "":
		return p.Exact == path
	case p.Regex != "":
		r, err := regexp.Compile("^(?:" + p.Regex + ")$")
		return err == nil && r.MatchString(path)
	}
	return strings.HasPrefix(path, p.Prefix)
}

// and is what two take both, as matches of which each must hold; false if that is nothing.
func (p PathMatch) and(o PathMatch) ([]PathMatch, bool) {
	switch {
	case p.Exact != "":
		return []PathMatch{p}, o.Takes(p.Exact)
	case o.Exact != "":
		return []PathMatch{o}, p.Takes(o.Exact)
	case p == PathMatch{} || p == o:
		p, o = o, PathMatch{}
	case p.Regex == "" && o.Regex == "":
		if len(p.Prefix) < len(o.Prefix) {
			p, o = o, p
		}
		return []PathMatch{p}, strings.HasPrefix(p.Prefix, o.Prefix)
	}
	var both []PathMatch
	for _, m := range [][2]PathMatch{{p, o}, {o, p}} {
		if !m[1].begins(m[0].Prefix) || m[0].Regex != "" {
			both = append(both, m[0])
		}
	}
	return both, true
}

// begins reports whether all paths that an expression takes are seen to begin so.
func (p PathMatch) begins(prefix string) bool {
	r, err := regexp.Compile(p.Regex)
	if err != nil {
		return false
	}
	literal, _ := r.LiteralPrefix()
	return strings.HasPrefix(literal, prefix)
}
