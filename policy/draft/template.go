package draft

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

const (
	// mostTemplates are made of the paths of one caller's calls by one method.
	mostTemplates = 20
	// mostSiblings are as many different segments in one place as are taken for names; more
	// are taken for ids.
	mostSiblings = 20
)

// segment is a tree of paths by their segments, in which those that are ids are one.
type segment struct {
	children map[string]*segment
	ends     tally // paths that end here
}

// add merges a path into the tree.
func (s *segment) add(rest []string, t tally) {
	if len(rest) == 0 {
		s.ends = s.ends.and(t)
		return
	}
	name := rest[0]
	if isID(name) {
		name = "*"
	}
	s.child(name).add(rest[1:], t)
}

func (s *segment) child(name string) *segment {
	if s.children == nil {
		s.children = map[string]*segment{}
	}
	if s.children[name] == nil {
		s.children[name] = &segment{}
	}
	return s.children[name]
}

// isID reports whether a segment is taken for one of many of its kind: a number, or one with so
// many digits that nobody calls a thing so.
func isID(s string) bool {
	digits, others := 0, 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '-':
		default:
			others++
		}
	}
	switch {
	case digits == 0:
		return strings.Contains(s, "*") // which a template cannot have
	case others == 0: // a number, a UUID, a hash
		return digits == len(s) || len(s) >= 8
	}
	return len(s) >= 16 && digits >= 4
}

// templates are all paths in as few as are allowed, in order.
func (s *segment) templates() []template {
	s.merge(true)
	for s.leaves() > mostTemplates {
		s.deepest().whole()
	}
	return s.list("")
}

// merge makes one of segments that are too many to be names, except for the first ones of
// paths, which are an application's own.
func (s *segment) merge(first bool) {
	if !first && len(s.children) > mostSiblings {
		all := &segment{}
		for name, c := range s.children {
			if name == "" { // a slash at the end
				continue
			}
			all.join(c)
			delete(s.children, name)
		}
		s.child("*").join(all)
	}
	for _, c := range s.children {
		c.merge(false)
	}
}

func (s *segment) join(o *segment) {
	s.ends = s.ends.and(o.ends)
	for name, c := range o.children {
		s.child(name).join(c)
	}
}

func (s *segment) leaves() int {
	n := min(1, s.ends.calls)
	for _, c := range s.children {
		n += c.leaves()
	}
	return n
}

// branch is a segment behind which paths part, and how far it is from the first one.
type branch struct {
	*segment

	depth, leaves int // leaves behind it
	path          string
}

// deepest is the segment behind which the most paths part, of those that are the furthest from
// the first one.
func (s *segment) deepest() branch {
	var best branch
	var walk func(at *segment, path string, depth int)
	walk = func(at *segment, path string, depth int) {
		if n := at.leaves() - min(1, at.ends.calls); n > 1 {
			b := branch{at, depth, n, path}
			if best.segment == nil || cmp.Or(cmp.Compare(b.depth, best.depth), cmp.Compare(b.leaves, best.leaves), strings.Compare(best.path, b.path)) > 0 {
				best = b
			}
		}
		for _, name := range slices.Sorted(maps.Keys(at.children)) {
			walk(at.children[name], path+"/"+name, depth+1)
		}
	}
	walk(s, "", 0)
	return best
}

// whole makes one of all paths that go on behind a segment.
func (s *segment) whole() {
	all := tally{}
	for _, c := range s.children {
		all = all.and(c.total())
	}
	s.children = map[string]*segment{"**": {ends: all}}
}

func (s *segment) total() tally {
	t := s.ends
	for _, c := range s.children {
		t = t.and(c.total())
	}
	return t
}

func (s *segment) list(path string) []template {
	var all []template
	if s.ends.calls > 0 {
		all = append(all, template{path, s.ends})
	}
	for _, name := range slices.Sorted(maps.Keys(s.children)) {
		all = append(all, s.children[name].list(path+"/"+name)...)
	}
	return all
}
