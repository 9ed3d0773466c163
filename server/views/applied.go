package views

import (
	"slices"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/proxy"
)

const (
	// versionsKept is how many versions of a view are told apart by their age. A proxy that
	// has an older one has none of them.
	versionsKept = 32
	// leftKept is how long it is known when an endpoint went; who waits for that does not
	// wait as long.
	leftKept = 10 * time.Minute
)

// Following is what the proxies of one host have of a virtual node's view, as their agent
// says.
type Following struct {
	Node     proxy.Ref
	Version  string // of the view that all of them have answered last, "" for none
	Proxies  int
	Envoy    string                // their version
	Rejected []*api.ResourceStatus // of what they were sent last
}

// heard is what agents that are connected here say of the views that they follow. It has a
// lock of its own: who reports does not wait for views to be made.
type heard struct {
	mu sync.Mutex
	by map[string][]Following // by agent, as its latest report says; guarded by mu
	// news are the agents that have said something since hear; guarded by mu.
	news map[string]bool
	// changed counts what was heard.
	changed watched.Value[int]
}

// Reported takes what an agent says of the views of virtual nodes that it may follow, in
// place of what it said before. It never waits.
func (v *Views) Reported(agent string, list []Following) {
	h := &v.heard
	h.mu.Lock()
	if h.by[agent] = list; list == nil {
		h.by[agent] = []Following{} // it is connected
	}
	h.news[agent] = true
	h.mu.Unlock()
	h.changed.Update(func(n int) int { return n + 1 })
}

// Left forgets what an agent said, unless it is connected again.
func (v *Views) Left(agent string, connected func() bool) {
	h := &v.heard
	h.mu.Lock()
	if !connected() {
		delete(h.by, agent)
		h.news[agent] = true
	}
	h.mu.Unlock()
	h.changed.Update(func(n int) int { return n + 1 })
}

// Heard is closed at the next thing that an agent says of its views.
func (v *Views) Heard() <-chan struct{} {
	_, changed := v.heard.changed.Get()
	return changed
}

// version is one that a view had, by when it was given it.
type version struct {
	name string
	seq  uint64
}

// makes notes that a view is made in a version, the newest.
func (k *keptView) makes(name string, seq uint64) {
	k.newest = name
	k.gives(name, seq)
}

// gives notes that proxies may have a version of a view, which is what was made at seq.
func (k *keptView) gives(name string, seq uint64) {
	k.given = slices.DeleteFunc(k.given, func(old version) bool { return old.name == name }) // it is a new one now
	if len(k.given) == versionsKept {
		k.given = slices.Delete(k.given, 0, 1)
	}
	k.given = append(k.given, version{name, seq})
}

// place is where a proxy of a virtual node listens.
type place struct {
	node    proxy.Ref
	address string
}

// departure is when an endpoint went: what views were given after seq is without it.
type departure struct {
	seq uint64
	at  time.Time
}

// departed notes which endpoints that callers were sent to are not in what views are made
// of from now on. The caller holds mu.
func (v *Views) departed(in nodeInputs) {
	if v.at.model == nil {
		return
	}
	for at, d := range v.left {
		if time.Since(d.at) > leftKept {
			delete(v.left, at)
		}
	}
	for _, node := range in.endpoints.Differ(v.at.endpoints) {
		for _, e := range v.at.endpoints.Of(node) {
			if at := (place{node, e.Address}); e.Healthy && !in.sendsTo(at) {
				v.left[at] = departure{v.seq, time.Now()}
			}
		}
	}
}

// sendsTo reports whether callers are sent to a place.
func (in nodeInputs) sendsTo(at place) bool {
	for _, e := range in.endpoints.Of(at.node) {
		if e.Address == at.address && e.Healthy {
			return true
		}
	}
	return false
}

// Without reports whether nobody is sent to an address of a virtual node any more (R11): no
// healthy proxy is registered there, the views of all who call the node are made without
// it, and every agent here whose proxies follow one says that these have taken it. Ask
// again when Heard is closed, and bound that: a proxy that takes nothing holds it up, and so
// does an agent that lies. A proxy whose agent is not connected is not waited for.
func (v *Views) Without(node proxy.Ref, address string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := place{node, address}
	if v.source.Look().nodeInputs().sendsTo(at) || v.at.model != nil && v.at.sendsTo(at) {
		return false
	}
	went, ok := v.left[at]
	if !ok { // nobody was sent there, or long ago
		return true
	}
	callers := map[proxy.Ref]bool{}
	for n := range v.at.model.Graph().Reaching(mesh.NodeName(node)) {
		callers[n.Ref] = true
	}
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	for _, list := range v.heard.by {
		for _, f := range list {
			if f.Proxies > 0 && callers[f.Node] && !v.hasSince(f, went.seq) {
				return false
			}
		}
	}
	return true
}

// hasSince reports whether what proxies have of a view is its latest, or was given after seq.
// The caller holds mu.
func (v *Views) hasSince(f Following, seq uint64) bool {
	for key := range v.shapes[f.Node] {
		k := v.nodes[key]
		if f.Version != "" && k.newest == f.Version {
			return true
		}
		for _, g := range k.given {
			if g.name == f.Version && g.seq > seq {
				return true
			}
		}
	}
	return false
}
