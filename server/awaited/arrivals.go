package awaited

import (
	"sync"

	"signet.example/proxy"
	"signet.example/server/shared"
)

// Registered is a snapshot of the proxies that are registered; another one is another R.
type Registered[R any] interface {
	comparable
	// Ready reports whether a proxy of a virtual node is ready.
	Ready(node proxy.Ref) bool
	// Differ lists the virtual nodes of which other proxies are registered than in another snapshot.
	Differ(from R) []proxy.Ref
}

// Arrivals end the wait for virtual nodes. They look at those alone of which something has changed
// since the last look: a mesh that was imported with its Bindings awaits all of its nodes, and every
// report of every agent is a look. It is safe for any number of goroutines.
type Arrivals[R Registered[R]] struct {
	mu         sync.Mutex
	nodes      *Nodes // those of the last look, guarded by mu
	registered R      // that of the last look, guarded by mu
}

// Look ends the wait for those of which a proxy is ready.
func (a *Arrivals[R]) Look(nodes shared.Value[*Nodes], registered func() R) {
	a.mu.Lock()
	defer a.mu.Unlock()
	awaits, _ := nodes.Get() // before what is registered
	now, left := registered(), awaits
	if awaits != a.nodes { // some are new, whose proxies may have been there
		left = awaits.Arrived(now.Ready)
	} else if awaits != nil && now != a.registered {
		for _, node := range now.Differ(a.registered) {
			if awaits.Has(node) && now.Ready(node) {
				left = left.Without(node)
			}
		}
	}
	a.nodes, a.registered = awaits, now
	if left == awaits {
		return
	}
	nodes.Update(func(is *Nodes) *Nodes {
		if is == awaits {
			return left
		}
		return is.Arrived(now.Ready) // others were added meanwhile, or are awaited no more
	})
	if is, _ := nodes.Get(); is == left {
		a.nodes = left // which were looked at already
	}
}
