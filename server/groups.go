package server

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"signet.example/identity"
	"signet.example/internal/ordered"
)

// group is what hangs on a NodeGroup, and what of it does not go together. Immutable:
// with and without make another one, which shares the rest.
type group struct {
	grants   ordered.Map[ordered.String, *grant] // by name
	hinted   ordered.Map[hintRef, *grant]        // Entries that have a hint
	overlaps pairs[overlap]                      // of Bindings
	twins    pairs[twins]                        // of Entries
}

// mostPairs is how many pairs of one group are listed. Those of N objects that all
// overlap are N²/2, and a list that long is read by nobody.
const mostPairs = 100

// pairs are objects that do not go together. Immutable.
type pairs[T any] struct {
	list []T
	more bool // there are others, or were
}

// with is p with those that came by one object.
func (p pairs[T]) with(add []T) pairs[T] {
	if left := mostPairs - len(p.list); len(add) > left {
		add, p.more = add[:left], true
	}
	p.list = slices.Concat(p.list, add)
	return p
}

// without is p without what an object was part of; all are looked for again where
// few of those that were too many are left.
func (p pairs[T]) without(of func(T) bool, all func() pairs[T]) pairs[T] {
	p.list = slices.DeleteFunc(slices.Clone(p.list), of)
	if p.more && len(p.list) < mostPairs/2 {
		return all()
	}
	return p
}

// hintRef is one of the Entries that have a hint.
type hintRef struct{ hint, name string }

// Compare implements ordered.Key.
func (r hintRef) Compare(o hintRef) int {
	return cmp.Or(strings.Compare(r.hint, o.hint), strings.Compare(r.name, o.name))
}

// with is the group with x, whose name is not in it.
func (g *group) with(x *grant) *group {
	next := *g
	next.grants = g.grants.With(ordered.String(x.name), x)
	switch {
	case x.binding != nil:
		next.overlaps = g.overlaps.with(g.overlapping(x, mostPairs+1))
	case x.entry.Hint != "":
		next.hinted = g.hinted.With(hintRef{x.entry.Hint, x.name}, x)
		next.twins = g.twins.with(g.twinsOf(x, mostPairs+1))
	}
	return &next
}

// without is the group without x, which is in it.
func (g *group) without(x *grant) *group {
	next := *g
	next.grants = g.grants.Without(ordered.String(x.name))
	if x.binding != nil {
		next.overlaps = g.overlaps.without(func(o overlap) bool { return o.first.Name == x.binding.Name || o.second.Name == x.binding.Name }, next.allOverlaps)
		return &next
	}
	next.hinted = g.hinted.Without(hintRef{x.entry.Hint, x.name})
	next.twins = g.twins.without(func(t twins) bool { return t.first.Name == x.name || t.second.Name == x.name }, next.allTwins)
	return &next
}

// overlap is two bindings of one group, for different virtual nodes, that can fit
// one process.
type overlap struct {
	first, second identity.Binding
	certain       bool // whoever fits one fits the other, too
}

// String reports what is wrong, for a finding and for a warning.
func (o overlap) String() string {
	who := "a process can fit both"
	if o.certain {
		who = "every process that the more exact one fits, the other fits too"
	}
	return fmt.Sprintf("bindings %s (%s) and %s (%s) of group %s overlap: %s; such a process is the proxy that its xDS node id names, and gets neither identity from the Workload API", o.first.Name, o.first.VirtualNode,
		o.second.Name, o.second.VirtualNode, o.first.Group, who)
}

// allOverlaps looks at all bindings of the group.
func (g *group) allOverlaps() pairs[overlap] {
	var before group
	var found pairs[overlap]
	for _, x := range g.grants.From("binding/") {
		if x.binding == nil || found.more {
			break
		}
		found = found.with(before.overlapping(x, mostPairs+1))
		before.grants = before.grants.With(ordered.String(x.name), x)
	}
	return found
}

// allTwins looks at all Entries of the group that have a hint.
func (g *group) allTwins() pairs[twins] {
	var before group
	var found pairs[twins]
	for ref, x := range g.hinted.All() {
		if found.more {
			break
		}
		found = found.with(before.twinsOf(x, mostPairs+1))
		before.hinted = before.hinted.With(ref, x)
	}
	return found
}

// overlapping are the overlaps of x with the bindings of the group, at most so many. Bindings of one
// virtual node do not compete, nor does one for a proxy that an agent starts itself:
// which virtual node that is stands in the agent's configuration.
func (g *group) overlapping(x *grant, most int) []overlap {
	if supervised(x.binding.Selectors) {
		return nil
	}
	var list []overlap
	for _, o := range g.grants.From("binding/") {
		b, c := *x.binding, o.binding
		if c == nil || len(list) == most {
			break // Entries beyond
		}
		if b.VirtualNode == c.VirtualNode || supervised(c.Selectors) || !b.Selectors.CompatibleWith(c.Selectors) {
			continue
		}
		certain := b.Selectors.Contains(c.Selectors) || c.Selectors.Contains(b.Selectors)
		if b.Name < c.Name {
			list = append(list, overlap{b, *c, certain})
		} else {
			list = append(list, overlap{*c, b, certain})
		}
	}
	return list
}

// groups are some of a model's, by name.
type groups = iter.Seq2[ordered.String, *group]

// overlaps are those of some groups, by the names of the bindings.
func overlaps(in groups) []overlap {
	var list []overlap
	for _, g := range in {
		list = append(list, g.overlaps.list...)
	}
	slices.SortFunc(list, func(a, b overlap) int {
		return cmp.Or(strings.Compare(a.first.Name, b.first.Name), strings.Compare(a.second.Name, b.second.Name))
	})
	return list
}

// supervised reports whether selectors fit only a proxy that an agent started.
func supervised(s identity.Selectors) bool {
	return slices.ContainsFunc(s, func(x identity.Selector) bool { return x.Type == "signet" })
}

// twins are two Entries of one group and one hint that a process can hold at the same
// time: it chooses by the hint, and is given it with one of them.
type twins struct{ first, second identity.Entry }

func (t twins) String() string {
	return fmt.Sprintf("entries %s and %s of group %s have the hint %q, and a process can fit both: it gets the hint with the one that was there first", t.first.Name, t.second.Name, t.first.Group, t.first.Hint)
}

// twinsOf are those of x with the Entries of the group, at most so many.
func (g *group) twinsOf(x *grant, most int) []twins {
	var list []twins
	for ref, o := range g.hinted.From(hintRef{hint: x.entry.Hint}) {
		if ref.hint != x.entry.Hint || len(list) == most {
			break
		}
		if x.entry.ID == o.entry.ID || !x.entry.Selectors.CompatibleWith(o.entry.Selectors) {
			continue
		}
		if x.name < o.name {
			list = append(list, twins{x.entry, o.entry})
		} else {
			list = append(list, twins{o.entry, x.entry})
		}
	}
	return list
}

// sameHints are the twins of some groups, by their names.
func sameHints(in groups) []twins {
	var list []twins
	for _, g := range in {
		list = append(list, g.twins.list...)
	}
	slices.SortFunc(list, func(a, b twins) int {
		return cmp.Or(strings.Compare(a.first.Name, b.first.Name), strings.Compare(a.second.Name, b.second.Name))
	})
	return list
}

// unlisted names the groups of which not all overlaps and twins are listed.
func unlisted(in groups) []string {
	var names []string
	for name, g := range in {
		if g.overlaps.more || g.twins.more {
			names = append(names, string(name))
		}
	}
	return names
}
