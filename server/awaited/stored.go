package awaited

import (
	"iter"

	"signet.example/mesh"
	"signet.example/proxy"
)

// Model is what is stored.
type Model interface {
	Graph() *mesh.Graph
	// Managed reports whether a Binding lets any agent host the virtual node.
	Managed(node proxy.Ref) bool
}

// After is which virtual nodes are awaited when next is stored in the place of now, of which the
// Bindings of rebound differ: those that were there without a Binding and get one are, too, and those
// that have none any more are not, also where a change that was to give them one was not stored. A node
// that comes with its Binding was called by nobody: its Binding counts at once, also where all of it is
// stored anew after a loss.
func After(was *Nodes, rebound iter.Seq[proxy.Ref], now, next Model) *Nodes {
	before := func(node proxy.Ref) bool { return now.Graph().Node(node) != nil }
	after := was
	for node := range was.All() {
		if !next.Managed(node) || !before(node) {
			after = after.Without(node)
		}
	}
	for node := range rebound {
		if next.Managed(node) && !now.Managed(node) && before(node) {
			after = after.With(node)
		}
	}
	return after
}
