package fleet

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"

	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// Registered is an immutable snapshot of what is registered. Another snapshot is another
// pointer, and what two snapshots share costs nothing to compare.
type Registered struct {
	by      ordered.Map[proxy.Ref, *replicas]      // what views are made of
	agents  ordered.Map[ordered.String, *replicas] // by agent
	on      ordered.Map[claim, *replicas]          // who is where
	leaving ordered.Map[departure, *Endpoint]      // those whose agent is away
}

// replicas are endpoints by agent and proxy.
type replicas struct{ list []*Endpoint }

func (r *replicas) all() []*Endpoint {
	if r == nil {
		return nil
	}
	return r.list
}

func byKey(n *Endpoint, key string) int { return strings.Compare(n.key(), key) }

// claim is one port of one address. It is one proxy's; those of another agent may
// be there for the same virtual node, since a host that joined anew is one.
type claim struct {
	address string
	port    uint32
}

// Compare implements ordered.Key.
func (c claim) Compare(o claim) int {
	return cmp.Or(strings.Compare(c.address, o.address), cmp.Compare(c.port, o.port))
}

// departure orders endpoints by when their agent went away.
type departure struct {
	at  int64 // nanoseconds since 1970
	key string
}

// Compare implements ordered.Key.
func (d departure) Compare(o departure) int {
	return cmp.Or(cmp.Compare(d.at, o.at), strings.Compare(d.key, o.key))
}

func (e *Endpoint) departure() departure { return departure{e.Gone.UnixNano(), e.key()} }

// Of lists what is registered for a virtual node, by agent and proxy.
func (r *Registered) Of(at proxy.Ref) []*Endpoint { return r.by.Get(at).all() }

// Ready reports whether any that is registered for a virtual node is healthy at one of its ports.
func (r *Registered) Ready(node proxy.Ref) bool {
	return slices.ContainsFunc(r.Of(node), func(e *Endpoint) bool { return slices.ContainsFunc(e.Ports, e.HealthyAt) })
}

// of is what is registered for an agent's proxy, nil if nothing is.
func (r *Registered) of(n *Endpoint) *Endpoint {
	list := r.agents.Get(ordered.String(n.Agent)).all()
	if i, ok := slices.BinarySearchFunc(list, n.key(), byKey); ok {
		return list[i]
	}
	return nil
}

// OfAgent lists what is registered for an agent, by proxy.
func (r *Registered) OfAgent(agent string) []*Endpoint {
	return r.agents.Get(ordered.String(agent)).all()
}

// all lists everything, by agent and proxy.
func (r *Registered) all() iter.Seq[*Endpoint] {
	return func(yield func(*Endpoint) bool) {
		for _, own := range r.agents.All() {
			for _, n := range own.list {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// put is the snapshot with n in place of what its proxy was.
func (r *Registered) put(n *Endpoint) *Registered {
	next := *r.drop(r.of(n))
	next.by = add(next.by, n.Ref(), n)
	next.agents = add(next.agents, ordered.String(n.Agent), n)
	for _, p := range n.Ports {
		next.on = add(next.on, claim{n.Address, p}, n)
	}
	if !n.Gone.IsZero() {
		next.leaving = next.leaving.With(n.departure(), n)
	}
	return &next
}

// drop is the snapshot without n, which is in it or nil.
func (r *Registered) drop(n *Endpoint) *Registered {
	if n == nil {
		return r
	}
	next := *r
	next.by = remove(next.by, n.Ref(), n)
	next.agents = remove(next.agents, ordered.String(n.Agent), n)
	for _, p := range n.Ports {
		next.on = remove(next.on, claim{n.Address, p}, n)
	}
	next.leaving = next.leaving.Without(n.departure())
	return &next
}

func add[K ordered.Key[K]](m ordered.Map[K, *replicas], k K, n *Endpoint) ordered.Map[K, *replicas] {
	list := m.Get(k).all()
	i, there := slices.BinarySearchFunc(list, n.key(), byKey)
	if there { // one port twice
		return m
	}
	return m.With(k, &replicas{slices.Insert(slices.Clone(list), i, n)})
}

func remove[K ordered.Key[K]](m ordered.Map[K, *replicas], k K, n *Endpoint) ordered.Map[K, *replicas] {
	list := m.Get(k).all()
	i, there := slices.BinarySearchFunc(list, n.key(), byKey)
	switch {
	case !there: // one port twice
		return m
	case len(list) == 1:
		return m.Without(k)
	}
	return m.With(k, &replicas{slices.Delete(slices.Clone(list), i, i+1)})
}

// rival is who is where n wants to be, as counts says.
func (r *Registered) rival(n *Endpoint, counts func(*Endpoint) bool) *Endpoint {
	for _, p := range n.Ports {
		for _, o := range r.on.Get(claim{n.Address, p}).all() {
			if o.rivals(n) && counts(o) {
				return o
			}
		}
	}
	return nil
}

// rivals reports whether o, which is where n wants to be, keeps it out: it is of another
// virtual node, or another proxy of the same host, with which n would share the calls.
func (e *Endpoint) rivals(n *Endpoint) bool {
	return e.key() != n.key() && (e.Agent == n.Agent || e.Ref() != n.Ref())
}

// replace is the snapshot in which what was taken, and nothing else, is an agent's.
func (r *Registered) replace(agent string, taken *Registered) *Registered {
	for n := range taken.all() {
		if old := r.of(n); old == nil || !old.same(n) {
			r = r.put(n)
		}
	}
	for _, n := range r.OfAgent(agent) {
		if taken.of(n) == nil {
			r = r.drop(n)
		}
	}
	return r
}

// expired is the snapshot without those whose agent is away for longer than grace, and in
// how long the next one is.
func (r *Registered) expired(now time.Time, grace time.Duration) (*Registered, time.Duration) {
	for _, n := range r.leaving.All() {
		if left := grace - now.Sub(n.Gone); left > 0 {
			return r, left
		}
		r = r.drop(n)
	}
	return r, never
}

// never is how long there is to wait for what is not due.
const never = time.Duration(1<<63 - 1)

// Differ lists the virtual nodes of which callers are told something else.
func (r *Registered) Differ(from *Registered) []proxy.Ref {
	var list []proxy.Ref
	for at := range r.by.Differ(from.by) {
		if !slices.EqualFunc(r.Of(at), from.Of(at), (*Endpoint).serves) {
			list = append(list, at)
		}
	}
	return list
}
