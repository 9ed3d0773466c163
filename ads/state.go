package ads

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Rejection is a version that a client refused; it is not sent to the view's
// clients again until the resource's content changes.
type Rejection struct {
	Type, Name, Version, Message string

	// Client is what the client is: another version of Envoy may take what one refused.
	Client string
}

func (r Rejection) compare(o Rejection) int {
	return cmp.Or(strings.Compare(r.Type, o.Type), strings.Compare(r.Name, o.Name), strings.Compare(r.Version, o.Version), strings.Compare(r.Client, o.Client))
}

// state is one immutable generation of a view.
type state struct {
	set *Set   // nil before the first Publish
	gen uint64 // counts publications
	// bad are the refused versions, by resource; good what clients had accepted
	// before, for those that have nothing yet. Both are small.
	bad  map[badKey]Rejection
	good map[key]*Resource
}

// key names a resource within a set.
type key struct{ typeURL, name string }

// badKey is a resource, and by which client it was refused: another version of Envoy may
// take it.
type badKey struct {
	key

	client string
}

// isOf reports whether what was refused is refused for a client.
func (k badKey) isOf(client string) bool { return k.client == client || k.client == anyClient }

// anyClient stands for every client in refusals.
const anyClient = "*"

// maxBad is how many refusals of a view are told apart by who refused.
const maxBad = 4096

// next is the generation gen, after old: rejections of versions that s no longer holds are
// forgotten, and what s replaces is remembered.
func (old *state) next(s *Set, gen uint64) *state {
	st := &state{set: s, gen: gen, bad: make(map[badKey]Rejection), good: make(map[key]*Resource)}
	for k, rej := range old.bad {
		if r := s.Get(k.typeURL, k.name); r != nil && r.Version == rej.Version {
			st.bad[k] = rej
		}
	}
	for _, t := range s.Types() {
		// A replaced secret is not kept: it holds a private key.
		if t == SecretType {
			continue
		}
		walk(old.set.Type(t), s.Type(t), func(was, is *Resource) {
			if was == nil || is == nil {
				return
			}
			k := key{t, is.Name}
			if was.Version != is.Version && !old.isBad(was) {
				st.good[k] = was
			} else if g := old.good[k]; g != nil {
				st.good[k] = g
			}
		})
	}
	return st
}

// refuse is the same generation without what was refused, unless the set has moved on.
func (st *state) refuse(rejs []Rejection) *state {
	next := &state{set: st.set, gen: st.gen, bad: maps.Clone(st.bad), good: maps.Clone(st.good)}
	if next.bad == nil {
		next.bad = map[badKey]Rejection{}
	}
	for _, rej := range rejs {
		k := key{rej.Type, rej.Name}
		if g := next.good[k]; g != nil && g.Version == rej.Version {
			delete(next.good, k) // it was replaced before it was refused
		}
		if r := st.set.Get(k.typeURL, k.name); r != nil && r.Version == rej.Version {
			b := badKey{k, rej.Client}
			if len(next.bad) >= maxBad {
				b.client = anyClient
			}
			next.bad[b] = rej
		}
	}
	return next
}

// isBad reports whether some client refused a resource.
func (st *state) isBad(r *Resource) bool {
	for k, rej := range st.bad {
		if k.typeURL == r.Type && k.name == r.Name && rej.Version == r.Version {
			return true
		}
	}
	return false
}

// refusable are the types of what clients may have reasons to refuse.
var refusable = []string{ClusterType, ListenerType, RouteType}

// Refusable reports whether a type is one of those.
func Refusable(typeURL string) bool { return slices.Contains(refusable, typeURL) }

// untried reports whether a set has a cluster, listener or route that no client of old was
// sent, and none has refused. What else changes cannot be refused, or must not wait:
// secrets, endpoints, and what goes away.
func (old *state) untried(s *Set) bool {
	for _, t := range refusable {
		if len(old.newIn(s, t)) > 0 {
			return true
		}
	}
	return false
}

func (old *state) newIn(s *Set, typeURL string) (list []*Resource) {
	walk(old.set.Type(typeURL), s.Type(typeURL), func(was, is *Resource) {
		if is != nil && (was == nil || was.Version != is.Version) && !old.isBad(is) {
			list = append(list, is)
		}
	})
	return list
}

// rejections lists what was refused, each once, by type, name and version.
func (st *state) rejections() []Rejection {
	rejs := slices.Collect(maps.Values(st.bad))
	slices.SortFunc(rejs, Rejection.compare)
	return slices.CompactFunc(rejs, func(a, b Rejection) bool { return a.Type == b.Type && a.Name == b.Name && a.Version == b.Version })
}
