// Package refused records which resources proxies have refused (NACKed), by virtual node: whose
// proxy refused what, and whether another host's proxies have accepted it since. The record
// survives a restart of the server.
//
// It must not know what views are made of, or which host tries a change first.
//
// # Concurrency
//
// Nothing here is locked: package views holds its own lock around every call.
package refused

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"signet.example/proxy"
)

// Most bounds the refusals that are kept, over all virtual nodes. Beyond it nothing is withheld: each
// proxy that refuses a resource keeps its previous version anyway.
const Most = 10_000

// Refusal records that a proxy of a virtual node refused a resource. The resource is withheld from
// the proxies of the same agent, and from all others until one of them has accepted it (R8). An
// update that takes a right away is never withheld.
type Refusal struct {
	Node                         proxy.Ref
	Agent, Envoy                 string // whose proxy refused it, and its version
	Type, Name, Version, Message string // Message is Envoy's own
	Form                         string // as in Resource
	Ended                        bool   // proxies ended while they had it: no other host tries it

	overruled bool // another agent's proxies have accepted it, or did not answer in time
}

// Compare orders refusals.
func (r Refusal) Compare(o Refusal) int {
	return cmp.Or(strings.Compare(r.Type, o.Type), strings.Compare(r.Name, o.Name), strings.Compare(r.Version, o.Version),
		r.Node.Compare(o.Node), strings.Compare(r.Agent, o.Agent))
}

// Resource identifies what Envoy may refuse. Form is the resource's version without the policy
// revision that routes are stamped with: another policy is no reason to try it again.
type Resource struct{ Type, Name, Form string }

// who is the agent whose proxy refused a resource, and that proxy's version of Envoy.
type who struct{ agent, envoy string }

// Node holds the refusals of one virtual node's proxies.
type Node map[Resource]map[who]Refusal

// Has reports whether a proxy of the agent, in that version of Envoy, has refused the resource.
func (n Node) Has(at Resource, agent, envoy string) bool {
	_, ok := n[at][who{agent, envoy}]
	return ok
}

// First returns one of the refusals of a resource, the same one for the same refusals.
func (n Node) First(at Resource) (r Refusal, ok bool) {
	if len(n[at]) == 0 {
		return r, false
	}
	return slices.MinFunc(slices.Collect(maps.Values(n[at])), Refusal.Compare), true
}

// Stand reports whether a resource is to be withheld from an agent's proxies of that version of
// Envoy, or with agent "" from all: it was refused, and is not overruled.
func (n Node) Stand(at Resource, envoy, agent string) bool {
	for by, r := range n[at] {
		if by.envoy == envoy && !r.overruled && (agent == "" || by.agent == agent || r.Ended) {
			return true
		}
	}
	return false
}

// SomeOf reports whether any refusal is the agent's.
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

// UntriedBy reports whether the agent's proxies could try one of the withheld resources: they have
// not refused it themselves, and it has not ended another's.
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

// Overrule marks the refusals of resources that proxies of the same version of Envoy have
// accepted: the fault is then the refusing host's own. It reports whether it marked any.
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

// Forgive forgets the refusals of agents that are gone, and returns the resources concerned.
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

// Keep forgets the resources for which keep returns false, and those without a refusal. It
// reports whether it forgot any.
func (n Node) Keep(keep func(Resource) bool) (some bool) {
	before := len(n)
	maps.DeleteFunc(n, func(at Resource, by map[who]Refusal) bool { return len(by) == 0 || !keep(at) })
	return len(n) != before
}

// All holds all refusals, by virtual node.
type All map[proxy.Ref]Node

// Add records a refusal.
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

// Room is how many more refusals may be kept. It is of one moment, and counts those that it lets in.
type Room struct {
	free int
	own  map[string]int // how many each agent has
}

// Room returns what is left of Most.
func (a All) Room() *Room {
	r := &Room{free: Most, own: map[string]int{}}
	for _, of := range a {
		for _, by := range of {
			for w := range by {
				r.free--
				r.own[w.agent]++
			}
		}
	}
	return r
}

// share is how much of the room that is left one agent may have: a quarter.
const share = 4

// Take reports whether one more refusal of an agent's may be kept, and counts it. Whoever makes
// them up has a fifth of Most in the end, the next one a fifth of what that leaves, and so on:
// whoever has few finds room.
func (r *Room) Take(agent string) bool {
	if share*r.own[agent] >= r.free {
		return false
	}
	r.free--
	r.own[agent]++
	return true
}

// Count returns the number of refusals.
func (a All) Count() (n int) {
	for _, of := range a {
		for _, by := range of {
			n += len(by)
		}
	}
	return n
}

// standing lists the refusals that are not overruled, sorted.
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
