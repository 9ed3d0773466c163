// Package refused is what proxies refused of what they were sent: who of which virtual node,
// and whether others have taken it, also over a restart of the server.
//
// It must not know what views are made of, or who has a change first.
package refused

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"signet.example/proxy"
)

// Most is how many refusals are kept at a time, of all virtual nodes: more is left to each proxy,
// which keeps what it had.
const Most = 10_000

// Refusal is that a proxy of a virtual node refused a resource. It is withheld from those of the
// agent whose proxy that was, and from the others as long as none of them has taken it (R8):
// what takes a right away is held back by nobody's word.
type Refusal struct {
	Node                         proxy.Ref
	Agent, Envoy                 string // whose proxy refused it, and in which version
	Type, Name, Version, Message string // the last in Envoy's words
	Form                         string // see Resource
	Ended                        bool   // it is what ended proxies, and is tried by nobody else

	overruled bool // another agent's have taken it, or were given it
}

// Compare orders refusals.
func (r Refusal) Compare(o Refusal) int {
	return cmp.Or(strings.Compare(r.Type, o.Type), strings.Compare(r.Name, o.Name), strings.Compare(r.Version, o.Version),
		r.Node.Compare(o.Node), strings.Compare(r.Agent, o.Agent))
}

// Resource is one form of a resource: what Envoy can have reasons to refuse. It is a version
// without the policy that routes are stamped with.
type Resource struct{ Type, Name, Form string }

// who refused a resource, and in which version of Envoy.
type who struct{ agent, envoy string }

// Node is what proxies of one virtual node refused.
type Node map[Resource]map[who]Refusal

// Has reports whether an agent's proxies are known to have refused a resource.
func (n Node) Has(at Resource, agent, envoy string) bool {
	_, ok := n[at][who{agent, envoy}]
	return ok
}

// First is one of the refusals of a resource, always the same.
func (n Node) First(at Resource) (r Refusal, ok bool) {
	if len(n[at]) == 0 {
		return r, false
	}
	return slices.MinFunc(slices.Collect(maps.Values(n[at])), Refusal.Compare), true
}

// Stand reports whether proxies of a version of Envoy refused a resource, and no others have
// taken it: those of one agent, or for "" of any.
func (n Node) Stand(at Resource, envoy, agent string) bool {
	for by, r := range n[at] {
		if by.envoy == envoy && !r.overruled && (agent == "" || by.agent == agent || r.Ended) {
			return true
		}
	}
	return false
}

// SomeOf reports whether an agent's proxies refused anything.
func (n Node) SomeOf(agent string) bool {
	for _, by := range n {
		for w := range by {
			if w.agent == agent {
				return true
			}
		}
	}
	return false
}

// UntriedBy reports whether something of what is withheld could be tried by an agent's proxies.
func (n Node) UntriedBy(agent string, withheld []Resource) bool {
	return slices.ContainsFunc(withheld, func(at Resource) bool {
		for by, r := range n[at] {
			if by.agent == agent || r.Ended {
				return false
			}
		}
		return true
	})
}

// Overrule has refusals of what other proxies of that version of Envoy have taken withhold nothing
// any more: they are of their hosts alone. It reports whether there were any.
func (n Node) Overrule(envoy string, taken func(Resource) bool) (some bool) {
	for at, by := range n {
		if !taken(at) {
			continue
		}
		for w, of := range by {
			if w.envoy == envoy && !of.overruled {
				of.overruled = true
				by[w], some = of, true
			}
		}
	}
	return some
}

// Forgive forgets what agents refused that are gone, and returns what of.
func (n Node) Forgive(gone func(agent string) bool) (of []Resource) {
	for at, by := range n {
		before := len(by)
		maps.DeleteFunc(by, func(w who, _ Refusal) bool { return gone(w.agent) })
		if len(by) != before {
			of = append(of, at)
		}
	}
	return of
}

// Keep forgets what keep is false of, and that of which nobody is left who refused it. It
// reports whether there was any.
func (n Node) Keep(keep func(Resource) bool) (some bool) {
	before := len(n)
	maps.DeleteFunc(n, func(at Resource, by map[who]Refusal) bool { return len(by) == 0 || !keep(at) })
	return len(n) != before
}

// All is what proxies refused, by virtual node.
type All map[proxy.Ref]Node

// Add notes a refusal.
func (a All) Add(r Refusal) {
	if a[r.Node] == nil {
		a[r.Node] = Node{}
	}
	at := Resource{r.Type, r.Name, cmp.Or(r.Form, r.Version)} // the release before has no form
	if a[r.Node][at] == nil {
		a[r.Node][at] = map[who]Refusal{}
	}
	a[r.Node][at][who{r.Agent, r.Envoy}] = r
}

// Count is how many there are.
func (a All) Count() (n int) {
	for _, of := range a {
		for _, by := range of {
			n += len(by)
		}
	}
	return n
}

// standing lists those that are not overruled, in order.
func (a All) standing() (list []Refusal) {
	for _, of := range a {
		for _, by := range of {
			for _, r := range by {
				if !r.overruled {
					list = append(list, r)
				}
			}
		}
	}
	slices.SortFunc(list, Refusal.Compare)
	return list
}
