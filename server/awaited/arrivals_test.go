package awaited

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"signet.example/internal/watched"
	"signet.example/proxy"
)

// registry is a snapshot that counts how often it is asked about a node.
type registry struct {
	ready map[proxy.Ref]bool
	asked *int
}

func (r *registry) Ready(node proxy.Ref) bool {
	*r.asked++
	return r.ready[node]
}

func (r *registry) Differ(from *registry) []proxy.Ref {
	var list []proxy.Ref
	for node, is := range r.ready {
		if was, ok := from.ready[node]; !ok || was != is {
			list = append(list, node)
		}
	}
	for node := range from.ready {
		if _, ok := r.ready[node]; !ok {
			list = append(list, node)
		}
	}
	return list
}

// with is the next snapshot.
func (r *registry) with(node proxy.Ref, ready bool) *registry {
	next := &registry{maps.Clone(r.ready), r.asked}
	next.ready[node] = ready
	return next
}

func TestALookAfterArrivalsIsAtWhatHasChangedHoweverManyAreAwaited(t *testing.T) {
	const many = 500
	at := func(i int) proxy.Ref { return proxy.Node("shop", fmt.Sprintf("node-%d", i)) }
	asked := 0
	registered := &registry{map[proxy.Ref]bool{}, &asked}
	nodes := &watched.Value[*Nodes]{}
	var all *Nodes
	for i := range many {
		all = all.With(at(i))
	}
	nodes.Set(all)
	var a Arrivals[*registry]
	look := func() (questions int) {
		asked = 0
		a.Look(nodes, func() *registry { return registered })
		return asked
	}
	if n := look(); n != many {
		t.Errorf("the first look asks about %d of %d", n, many)
	}
	for i := range 100 { // reports by which nothing changes, and such by which one node does
		if n := look(); n > 0 {
			t.Fatalf("a look at what has not changed asks about %d nodes", n)
		}
		registered = registered.with(at(i), i%2 == 0)
		if n := look(); n > 1 {
			t.Fatalf("a look at one node that has changed asks about %d", n)
		}
	}
	if list := slices.Collect(nodes.Load().All()); len(list) != many-50 || nodes.Load().Has(at(0)) || !nodes.Load().Has(at(1)) {
		t.Errorf("%d are awaited of %d of which 50 are ready", len(list), many)
	}

	// Awaited anew where it is ready already: the next look ends it, though nothing else has changed.
	nodes.Update(func(is *Nodes) *Nodes { return is.With(at(0)) })
	look()
	registered = registered.with(at(0), false)
	if look(); nodes.Load().Has(at(0)) {
		t.Error("a node that was ready is awaited still")
	}
}

func TestWhatDiffersIsFoundWithoutALookAtAllThatIsAwaited(t *testing.T) {
	var all *Nodes
	for i := range 2000 {
		all = all.With(proxy.Node("shop", fmt.Sprintf("node-%d", i)))
	}
	less := all.Without(proxy.Node("shop", "node-7"))
	if list := less.Differ(all); !slices.Equal(list, []proxy.Ref{proxy.Node("shop", "node-7")}) {
		t.Errorf("they differ in %v", list)
	}
	if n := testing.AllocsPerRun(10, func() { less.Differ(all) }); n > 100 {
		t.Errorf("it takes %v allocations", n)
	}
	if list := (*Nodes)(nil).Differ(less.Without(proxy.Node("shop", "node-8"))); len(list) != 1998 {
		t.Errorf("from none they differ in %d", len(list))
	}
}
