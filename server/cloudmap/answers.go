package cloudmap

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// Question is what is asked for a virtual node. Nobody changes it.
type Question struct {
	Namespace  string            `json:"namespace"`
	Service    string            `json:"service"`
	Attributes map[string]string `json:"attributes,omitempty"` // that an instance must all have
	// Preference is which address of an instance is called: IPv4_ONLY, IPv6_ONLY,
	// IPv6_PREFERRED, or IPv4_PREFERRED, which "" is too.
	Preference string `json:"preference,omitempty"`
}

// same reports whether the two have one answer.
func (q Question) same(o Question) bool {
	return q.Namespace == o.Namespace && q.Service == o.Service && q.Preference == o.Preference && maps.Equal(q.Attributes, o.Attributes)
}

// Instance is where one can be called.
type Instance struct {
	Address string `json:"address"`
	Port    uint32 `json:"port,omitempty"` // 0 where it has none of its own
}

// answer is what was found last, with success. Immutable.
type answer struct {
	of        Question
	instances []Instance // sorted, each once
}

// Answers are by virtual node. Immutable; another one is another pointer.
type Answers struct {
	by ordered.Map[proxy.Ref, *answer]
}

// Of lists the instances of a virtual node; ok reports whether any answer is known.
func (a *Answers) Of(node proxy.Ref) (list []Instance, ok bool) {
	if a == nil {
		return nil, false
	}
	if x := a.by.Get(node); x != nil {
		return x.instances, true
	}
	return nil, false
}

// Differ lists the virtual nodes of which the two do not have the same.
func (a *Answers) Differ(o *Answers) iter.Seq[proxy.Ref] {
	return a.all().Differ(o.all())
}

func (a *Answers) all() ordered.Map[proxy.Ref, *answer] {
	if a == nil {
		return ordered.Map[proxy.Ref, *answer]{}
	}
	return a.by
}

// with has an answer in the place of what there was; the same one changes nothing.
func (a *Answers) with(node proxy.Ref, x *answer) *Answers {
	if old := a.all().Get(node); old != nil && old.of.same(x.of) && slices.Equal(old.instances, x.instances) {
		return a
	}
	return &Answers{a.all().With(node, x)}
}

// only is a without what is not asked for any more.
func (a *Answers) only(asked map[proxy.Ref]Question) *Answers {
	left := a.all()
	for node, x := range left.All() {
		if q, ok := asked[node]; !ok || !q.same(x.of) {
			left = left.Without(node)
		}
	}
	if left == a.all() {
		return a
	}
	return &Answers{left}
}

// The attributes of an instance that say where it is.
const (
	attributeIPv4 = "AWS_INSTANCE_IPV4"
	attributeIPv6 = "AWS_INSTANCE_IPV6"
	attributePort = "AWS_INSTANCE_PORT"
)

// callable is where an instance is called, by its attributes; not ok where it cannot be.
// Who may register instances may not send the proxies of the mesh to themselves, or to the
// metadata service of their host.
func callable(attributes map[string]string, preference string) (_ Instance, ok bool) {
	families := []struct {
		name string
		has  func(netip.Addr) bool
	}{{attributeIPv4, netip.Addr.Is4}, {attributeIPv6, isIPv6}}
	switch preference {
	case "IPv4_ONLY":
		families = families[:1]
	case "IPv6_ONLY":
		families = families[1:]
	case "IPv6_PREFERRED":
		slices.Reverse(families)
	}
	var n Instance
	for _, f := range families {
		a, err := netip.ParseAddr(attributes[f.name])
		if err == nil && f.has(a) && proxy.AmongHosts(a) {
			n.Address = a.String()
			break
		}
	}
	if text, given := attributes[attributePort]; given {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return n, false
		}
		n.Port = uint32(port)
	}
	return n, n.Address != ""
}

// isIPv6 reports whether an address is of IPv6, also for the host that has it.
func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// listed are instances in their order, each once.
func listed(all []Instance) []Instance {
	slices.SortFunc(all, func(a, b Instance) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(all)
}
