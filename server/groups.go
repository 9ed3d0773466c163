package server

import (
	"cmp"
	"fmt"
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
	overlaps []overlap                           // of Bindings
	twins    []twins                             // of Entries
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
		next.overlaps = slices.Concat(g.overlaps, g.overlapping(x))
	case x.entry.Hint != "":
		next.hinted = g.hinted.With(hintRef{x.entry.Hint, x.name}, x)
		next.twins = slices.Concat(g.twins, g.twinsOf(x))
	}
	return &next
}

// without is the group without x, which is in it.
func (g *group) without(x *grant) *group {
	next := *g
	next.grants = g.grants.Without(ordered.String(x.name))
	if x.binding != nil {
		next.overlaps = slices.DeleteFunc(slices.Clone(g.overlaps), func(o overlap) bool { return o.first.Name == x.binding.Name || o.second.Name == x.binding.Name })
		return &next
	}
	next.hinted = g.hinted.Without(hintRef{x.entry.Hint, x.name})
	next.twins = slices.DeleteFunc(slices.Clone(g.twins), func(t twins) bool { return t.first.Name == x.name || t.second.Name == x.name })
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
	return fmt.Sprintf("bindings %s (%s/%s) and %s (%s/%s) of group %s overlap: %s; such a process is the proxy that its xDS node id names, and gets neither identity from the Workload API", o.first.Name, o.first.Mesh, o.first.VirtualNode,
		o.second.Name, o.second.Mesh, o.second.VirtualNode, o.first.Group, who)
}

// overlapping are the overlaps of x with the bindings of the group. Bindings of one
// virtual node do not compete, nor does one for a proxy that an agent starts itself:
// which virtual node that is stands in the agent's configuration.
func (g *group) overlapping(x *grant) []overlap {
	if supervised(x.binding.Selectors) {
		return nil
	}
	var list []overlap
	for _, o := range g.grants.From("binding/") {
		b, c := *x.binding, o.binding
		if c == nil {
			break // Entries beyond
		}
		if b.Mesh == c.Mesh && b.VirtualNode == c.VirtualNode || supervised(c.Selectors) || !b.Selectors.CompatibleWith(c.Selectors) {
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

// overlaps are those of a model, by the names of the bindings.
func overlaps(m *model) []overlap {
	var list []overlap
	for _, g := range m.hanging.All() {
		list = append(list, g.overlaps...)
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

// twinsOf are those of x with the Entries of the group.
func (g *group) twinsOf(x *grant) []twins {
	var list []twins
	for ref, o := range g.hinted.From(hintRef{hint: x.entry.Hint}) {
		if ref.hint != x.entry.Hint {
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

// sameHints are the twins of a model, by their names.
func sameHints(m *model) []twins {
	var list []twins
	for _, g := range m.hanging.All() {
		list = append(list, g.twins...)
	}
	slices.SortFunc(list, func(a, b twins) int {
		return cmp.Or(strings.Compare(a.first.Name, b.first.Name), strings.Compare(a.second.Name, b.second.Name))
	})
	return list
}
