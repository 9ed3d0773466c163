package ads

import (
	"slices"
	"strings"
)

// Resource lists in this file are sorted by name, without duplicates, and are
// never written to: streams share them.

// walk visits the union of two lists in order of names; the absent side is nil.
func walk(a, b []*Resource, visit func(a, b *Resource)) {
	for len(a) > 0 || len(b) > 0 {
		switch c := order2(a, b); {
		case c < 0:
			visit(a[0], nil)
			a = a[1:]
		case c > 0:
			visit(nil, b[0])
			b = b[1:]
		default:
			visit(a[0], b[0])
			a, b = a[1:], b[1:]
		}
	}
}

// order2 compares the first names of two lists of which at least one is not empty.
func order2(a, b []*Resource) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	case a[0] == b[0]:
		return 0
	}
	return strings.Compare(a[0].Name, b[0].Name)
}

// same reports whether two lists are one and the same slice.
func same(a, b []*Resource) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// diff returns what a client that has from needs to have to.
func diff(from, to []*Resource) (changed []*Resource, removed []string) {
	if same(from, to) {
		return nil, nil
	}
	if len(from) == 0 {
		return to, nil
	}
	walk(from, to, func(was, is *Resource) {
		switch {
		case is == nil:
			removed = append(removed, was.Name)
		case was == nil || was.Version != is.Version:
			changed = append(changed, is)
		}
	})
	return changed, removed
}

// with returns the list with r in the place of what has its name.
func with(list []*Resource, r *Resource) []*Resource {
	i, ok := search(list, r.Name)
	list = slices.Clone(list)
	if ok {
		list[i] = r
		return list
	}
	return slices.Insert(list, i, r)
}

// without returns the list without name.
func without(list []*Resource, name string) []*Resource {
	i, ok := search(list, name)
	if !ok {
		return list
	}
	return slices.Concat(list[:i], list[i+1:])
}

// patch returns base with the resources of over put in or replaced; keep
// decides about each name of the result.
func patch(base, over []*Resource, keep func(*Resource) bool) []*Resource {
	list := make([]*Resource, 0, max(len(base), len(over)))
	walk(base, over, func(b, o *Resource) {
		if o != nil {
			b = o
		}
		if keep(b) {
			list = append(list, b)
		}
	})
	return list
}
