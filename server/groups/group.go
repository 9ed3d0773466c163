package groups

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"signet.example/identity"
	"signet.example/internal/ordered"
)

// Group is what is granted to the hosts of a NodeGroup, and what of it does not go
// together. Immutable: with and without make another one, which shares the rest.
type Group struct {
	grants   ordered.Map[ordered.String, *Grant] // by name
	hinted   ordered.Map[hintRef, *Grant]        // Entries that have a hint
	overlaps pairs[Overlap]                      // of Bindings
	twins    pairs[Twins]                        // of Entries
}

// MostPairs is how many pairs of one group are listed. Those of N objects that all
// overlap are N²/2, and a list that long is read by nobody.
const MostPairs = 100

// pairs are objects that do not go together. Immutable.
type pairs[T any] struct {
	list []T
	more bool // there are others, or were
}

// with is p with those that came by one object.
func (p pairs[T]) with(add []T) pairs[T] {
	if left := MostPairs - len(p.list); len(add) > left {
		add, p.more = add[:left], true
	}
	p.list = slices.Concat(p.list, add)
	return p
}

// without is p without what an object was part of; all are looked for again where
// few of those that were too many are left.
func (p pairs[T]) without(of func(T) bool, all func() pairs[T]) pairs[T] {
	p.list = slices.DeleteFunc(slices.Clone(p.list), of)
	if p.more && len(p.list) < MostPairs/2 {
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

// Find is the grant of a name. It may be asked of a nil group, which has none.
func (g *Group) Find(name string) (*Grant, bool) {
	if g == nil {
		return nil, false
	}
	return g.grants.Find(ordered.String(name))
}

// with is the group with x, whose name is not in it.
func (g *Group) with(x *Grant) *Group {
	next := *g
	next.grants = g.grants.With(ordered.String(x.Name), x)
	switch {
	case x.Binding != nil:
		next.overlaps = g.overlaps.with(g.overlapping(x, MostPairs+1))
	case x.Entry.Hint != "":
		next.hinted = g.hinted.With(hintRef{x.Entry.Hint, x.Name}, x)
		next.twins = g.twins.with(g.twinsOf(x, MostPairs+1))
	}
	return &next
}

// without is the group without x, which is in it.
func (g *Group) without(x *Grant) *Group {
	next := *g
	next.grants = g.grants.Without(ordered.String(x.Name))
	if x.Binding != nil {
		next.overlaps = g.overlaps.without(func(o Overlap) bool { return o.First.Name == x.Binding.Name || o.Second.Name == x.Binding.Name }, next.allOverlaps)
		return &next
	}
	next.hinted = g.hinted.Without(hintRef{x.Entry.Hint, x.Name})
	next.twins = g.twins.without(func(t Twins) bool { return t.First.Name == x.Name || t.Second.Name == x.Name }, next.allTwins)
	return &next
}

// Overlap is two bindings of one group, for different virtual nodes, that can fit
// one process.
type Overlap struct {
	First, Second identity.Binding
	certain       bool // whoever fits one fits the other, too
}

// String reports what is wrong, for a finding and for a warning.
func (o Overlap) String() string {
	who := "a process can fit both"
	if o.certain {
		who = "every process that the more exact one fits, the other fits too"
	}
	return fmt.Sprintf("bindings %s (%s) and %s (%s) of group %s overlap: %s; such a process is the proxy that its xDS node id names, and gets neither identity from the Workload API", o.First.Name, o.First.VirtualNode,
		o.Second.Name, o.Second.VirtualNode, o.First.Group, who)
}

// allOverlaps looks at all bindings of the group.
func (g *Group) allOverlaps() pairs[Overlap] {
	var before Group
	var found pairs[Overlap]
	for _, x := range g.grants.From(bindingPrefix) {
		if x.Binding == nil || found.more {
			break
		}
		found = found.with(before.overlapping(x, MostPairs+1))
		before.grants = before.grants.With(ordered.String(x.Name), x)
	}
	return found
}

// allTwins looks at all Entries of the group that have a hint.
func (g *Group) allTwins() pairs[Twins] {
	var before Group
	var found pairs[Twins]
	for ref, x := range g.hinted.All() {
		if found.more {
			break
		}
		found = found.with(before.twinsOf(x, MostPairs+1))
		before.hinted = before.hinted.With(ref, x)
	}
	return found
}

// overlapping are the overlaps of x with the bindings of the group, at most so many. Bindings of one
// virtual node do not compete, nor does one for a proxy that an agent starts itself:
// which virtual node that is stands in the agent's configuration.
func (g *Group) overlapping(x *Grant, most int) []Overlap {
	if supervised(x.Binding.Selectors) {
		return nil
	}
	var list []Overlap
	for _, o := range g.grants.From(bindingPrefix) {
		b, c := *x.Binding, o.Binding
		if c == nil || len(list) == most {
			break // Entries beyond
		}
		if b.VirtualNode == c.VirtualNode || supervised(c.Selectors) || !b.Selectors.CompatibleWith(c.Selectors) {
			continue
		}
		certain := b.Selectors.Contains(c.Selectors) || c.Selectors.Contains(b.Selectors)
		if b.Name < c.Name {
			list = append(list, Overlap{b, *c, certain})
		} else {
			list = append(list, Overlap{*c, b, certain})
		}
	}
	return list
}

// Overlaps are those of some groups, by the names of the bindings.
func Overlaps(in Some) []Overlap {
	var list []Overlap
	for _, g := range in {
		list = append(list, g.overlaps.list...)
	}
	slices.SortFunc(list, func(a, b Overlap) int {
		return cmp.Or(strings.Compare(a.First.Name, b.First.Name), strings.Compare(a.Second.Name, b.Second.Name))
	})
	return list
}

// supervised reports whether selectors fit only a proxy that an agent started.
func supervised(s identity.Selectors) bool {
	return slices.ContainsFunc(s, func(x identity.Selector) bool { return x.Type == "signet" })
}

// Twins are two Entries of one group and one hint that a process can hold at the same
// time: it chooses by the hint, and is given it with one of them.
type Twins struct{ First, Second identity.Entry }

// String reports what is wrong, for a warning.
func (t Twins) String() string {
	return fmt.Sprintf("entries %s and %s of group %s have the hint %q, and a process can fit both: it gets the hint with the one that was there first", t.First.Name, t.Second.Name, t.First.Group, t.First.Hint)
}

// twinsOf are those of x with the Entries of the group, at most so many.
func (g *Group) twinsOf(x *Grant, most int) []Twins {
	var list []Twins
	for ref, o := range g.hinted.From(hintRef{hint: x.Entry.Hint}) {
		if ref.hint != x.Entry.Hint || len(list) == most {
			break
		}
		if x.Entry.ID == o.Entry.ID || !x.Entry.Selectors.CompatibleWith(o.Entry.Selectors) {
			continue
		}
		if x.Name < o.Name {
			list = append(list, Twins{x.Entry, o.Entry})
		} else {
			list = append(list, Twins{o.Entry, x.Entry})
		}
	}
	return list
}

// SameHints are the twins of some groups, by their names.
func SameHints(in Some) []Twins {
	var list []Twins
	for _, g := range in {
		list = append(list, g.twins.list...)
	}
	slices.SortFunc(list, func(a, b Twins) int {
		return cmp.Or(strings.Compare(a.First.Name, b.First.Name), strings.Compare(a.Second.Name, b.Second.Name))
	})
	return list
}

// Unlisted names the groups of which not all overlaps and twins are listed.
func Unlisted(in Some) []string {
	var names []string
	for name, g := range in {
		if g.overlaps.more || g.twins.more {
			names = append(names, name)
		}
	}
	return names
}
