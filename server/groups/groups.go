package groups

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fault"
)

// Groups is what NodeGroups decide, by everything that is stored. Immutable: With,
// Without and Placed make another one, which shares the rest.
type Groups struct {
	Granted Granted
	Hosts   Hosts
	Placing Placing
	Ranges  Ranges
}

// With is g with a grant, whose name is not in its group. nil is none.
func (g Groups) With(x *Grant) Groups {
	if x == nil {
		return g
	}
	on, in := g.Granted.Group(x.Entry.Group), ordered.String(x.Entry.Group)
	if on == nil {
		on = &Group{}
	}
	g.Granted.by = g.Granted.by.With(in, on.with(x))
	if b := x.Binding; b != nil {
		at := RefOf(*b)
		g.Hosts.by = g.Hosts.by.With(at, g.Hosts.by.Get(at).With(hostRef{b.Group, b.Name}, struct{}{}))
	}
	return g
}

// RefOf is what a Binding lets a proxy be.
func RefOf(b identity.Binding) proxy.Ref {
	return proxy.For(b.VirtualNode.Mesh, b.VirtualNode.Name, b.VirtualNode.Gateway)
}

// Without is g without a grant that is in it. nil is none.
func (g Groups) Without(x *Grant) Groups {
	if x == nil {
		return g
	}
	in := ordered.String(x.Entry.Group)
	if on := g.Granted.by.Get(in).without(x); on.grants.Empty() {
		g.Granted.by = g.Granted.by.Without(in)
	} else {
		g.Granted.by = g.Granted.by.With(in, on)
	}
	if b := x.Binding; b != nil {
		at := RefOf(*b)
		if left := g.Hosts.by.Get(at).Without(hostRef{b.Group, b.Name}); left.Empty() {
			g.Hosts.by = g.Hosts.by.Without(at)
		} else {
			g.Hosts.by = g.Hosts.by.With(at, left)
		}
	}
	return g
}

// Placed is g with these NodeGroups, by name, of which those with selectors place hosts.
func (g Groups) Placed(all iter.Seq[identity.NodeGroup]) Groups {
	g.Placing, g.Ranges = nil, nil
	for group := range all {
		if len(group.Addresses) > 0 {
			if g.Ranges == nil {
				g.Ranges = Ranges{}
			}
			g.Ranges[group.Name] = group.Addresses
		}
		if len(group.Selectors) > 0 {
			g.Placing = append(g.Placing, group)
		}
	}
	return g
}

// Granted is what is granted to groups. Two are == only where no group is granted
// anything else.
type Granted struct {
	by ordered.Map[ordered.String, *Group]
}

// Group is what is granted to a NodeGroup, nil if nothing is.
func (g Granted) Group(name string) *Group { return g.by.Get(ordered.String(name)) }

// Of lists what agents of a group are told that they may be, and a value that is == to
// another one of the group where that is the same.
func (g Granted) Of(name string) (version any, resources iter.Seq[*ads.Resource]) {
	var grants ordered.Map[ordered.String, *Grant]
	if on := g.Group(name); on != nil {
		grants = on.grants
	}
	return grants, func(yield func(*ads.Resource) bool) {
		for _, x := range grants.All() {
			if !yield(x.Resource) {
				return
			}
		}
	}
}

// Some are groups to which something is granted, by name.
type Some = iter.Seq2[string, *Group]

// All are all groups to which something is granted.
func (g Granted) All() Some {
	return func(yield func(string, *Group) bool) {
		for name, group := range g.by.All() {
			if !yield(string(name), group) {
				return
			}
		}
	}
}

// Named are those of these names.
func (g Granted) Named(names map[string]bool) Some {
	return func(yield func(string, *Group) bool) {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if group := g.Group(name); group != nil && !yield(name, group) {
				return
			}
		}
	}
}

// Hosts is which groups may host a virtual node, by their Bindings. Two are == only
// where that is the same for all.
type Hosts struct {
	by ordered.Map[proxy.Ref, ordered.Map[hostRef, struct{}]]
}

// hostRef is a Binding by which a group may host a virtual node.
type hostRef struct{ group, binding string }

// Compare implements ordered.Key.
func (h hostRef) Compare(o hostRef) int {
	return cmp.Or(strings.Compare(h.group, o.group), strings.Compare(h.binding, o.binding))
}

// May reports whether a Binding lets agents of the group host the virtual node.
func (h Hosts) May(group string, node proxy.Ref) bool {
	for ref := range h.by.Get(node).From(hostRef{group: group}) {
		return ref.group == group
	}
	return false
}

// Differ lists the virtual nodes of which not the same Bindings let groups host them.
func (h Hosts) Differ(o Hosts) iter.Seq[proxy.Ref] { return h.by.Differ(o.by) }

// Bindings are the names of the Bindings by which any group may host the virtual node,
// each with its group, in the order of the groups.
func (h Hosts) Bindings(node proxy.Ref) iter.Seq2[string, string] {
	return func(yield func(binding, group string) bool) {
		for ref := range h.by.Get(node).All() {
			if !yield(ref.binding, ref.group) {
				return
			}
		}
	}
}

// Any reports whether any group may host the virtual node.
func (h Hosts) Any(node proxy.Ref) bool { return !h.by.Get(node).Empty() }

// Ranges are where the proxies of each NodeGroup's hosts may listen, beside the address
// from which the host's agent connects. Nobody changes it.
type Ranges map[string][]netip.Prefix

// Contain reports whether an address is in a range of the group. Only what is an address
// among hosts is.
func (r Ranges) Contain(group string, at netip.Addr) bool {
	return proxy.AmongHosts(at) &&
		slices.ContainsFunc(r[group], func(p netip.Prefix) bool { return p.Contains(at) })
}

// Same reports whether both are the same ranges.
func (r Ranges) Same(o Ranges) bool { return maps.EqualFunc(r, o, slices.Equal[[]netip.Prefix]) }

// Placing is the NodeGroups that hosts are in by their selectors, by name.
type Placing []identity.NodeGroup

// Fitting names those whose selectors a host has, in order.
func (p Placing) Fitting(has identity.Selectors) []string {
	var names []string
	for _, g := range p {
		if g.Fits(has) {
			names = append(names, g.Name)
		}
	}
	return names
}

// Group is the one group whose selectors a host has. Where none fits, or several do, the
// host gets none, and an error that names what it has: which of two is meant nobody can
// say, as with bindings (D6).
func (p Placing) Group(has identity.Selectors) (string, error) {
	fit := p.Fitting(has)
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return "", fault.New(fault.Denied, "no NodeGroup's selectors fit this host, which has %s", plain.Text(strings.Join(has.Strings(), ", ")))
	}
	return "", fault.New(fault.Denied, "the selectors of NodeGroups %s all fit this host: it is in none until they exclude each other", plain.Text(strings.Join(fit, ", ")))
}

// Same reports whether both put every host into the same group.
func (p Placing) Same(o Placing) bool {
	return slices.EqualFunc(p, o, func(x, y identity.NodeGroup) bool {
		return x.Name == y.Name && slices.Equal(x.Selectors, y.Selectors)
	})
}
