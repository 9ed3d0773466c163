// Package ordered holds maps that never change: a [Map] with one more key is another
// Map, which shares everything with the first except the few nodes on the way to that key.
//
// So whoever has a Map may read it for as long as it likes while others go on from
// it, a change costs the logarithm of the size, and what two Maps that came from each
// other differ in is found without a look at what they share.
//
// # Concurrency
//
// Values are immutable: any number of goroutines may use one.
package ordered

import (
	"hash/maphash"
	"iter"
)

// Key is ordered by Compare, which returns 0 for equal keys only.
type Key[K any] interface {
	comparable
	Compare(other K) int
}

// String is a string as a Key.
type String string

// Compare implements Key.
func (s String) Compare(o String) int {
	switch {
	case s < o:
		return -1
	case s > o:
		return 1
	}
	return 0
}

// Map is an immutable map in the order of its keys. Its zero value is empty. Two Maps
// are == if one is the other; different ones may still hold the same.
type Map[K Key[K], V comparable] struct{ root *node[K, V] }

// node is one of a treap: keys are ordered from low to high, and none ranks above its
// parent. A rank is a hash of the key, so that a tree's shape depends only on
// the keys in it, and nobody outside can choose keys that make it deep.
type node[K Key[K], V comparable] struct {
	key       K
	value     V
	rank      uint64
	low, high *node[K, V]
}

var seed = maphash.MakeSeed()

// Find returns the value of a key, and whether there is one.
func (m Map[K, V]) Find(k K) (V, bool) {
	for n := m.root; n != nil; {
		switch c := k.Compare(n.key); {
		case c == 0:
			return n.value, true
		case c < 0:
			n = n.low
		default:
			n = n.high
		}
	}
	var none V
	return none, false
}

// Get returns the value of a key, or V's zero value.
func (m Map[K, V]) Get(k K) V {
	v, _ := m.Find(k)
	return v
}

// Empty reports whether the map has no key.
func (m Map[K, V]) Empty() bool { return m.root == nil }

// With returns a Map that also has k, or has another value for it; m itself if it has
// this one.
func (m Map[K, V]) With(k K, v V) Map[K, V] {
	return Map[K, V]{m.root.with(&node[K, V]{key: k, value: v, rank: maphash.Comparable(seed, k)})}
}

// Without returns a Map that has not k; m itself if it has not.
func (m Map[K, V]) Without(k K) Map[K, V] { return Map[K, V]{m.root.without(k)} }

// All lists keys and values in the order of the keys.
func (m Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { m.root.all(yield) }
}

// From is All beginning with the first key that is not below k.
func (m Map[K, V]) From(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { m.root.from(k, yield) }
}

// Differ lists in order the keys that only one of the two maps has, or that have
// different values in them.
func (m Map[K, V]) Differ(o Map[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) { differ(m.root, o.root, yield) }
}

// but returns n with other children; n itself if they are its own.
func (n *node[K, V]) but(low, high *node[K, V]) *node[K, V] {
	if low == n.low && high == n.high {
		return n
	}
	return &node[K, V]{n.key, n.value, n.rank, low, high}
}

func (n *node[K, V]) with(x *node[K, V]) *node[K, V] {
	if n == nil || x.rank > n.rank { // then the key is not below n either
		x.low, _, x.high = n.split(x.key)
		return x
	}
	switch c := x.key.Compare(n.key); {
	case c < 0:
		return n.but(n.low.with(x), n.high)
	case c > 0:
		return n.but(n.low, n.high.with(x))
	case x.value == n.value:
		return n
	}
	x.low, x.high = n.low, n.high
	return x
}

func (n *node[K, V]) without(k K) *node[K, V] {
	if n == nil {
		return nil
	}
	switch c := k.Compare(n.key); {
	case c < 0:
		return n.but(n.low.without(k), n.high)
	case c > 0:
		return n.but(n.low, n.high.without(k))
	}
	return join(n.low, n.high)
}

// join makes one tree of two, all of whose keys are in order.
func join[K Key[K], V comparable](low, high *node[K, V]) *node[K, V] {
	switch {
	case low == nil:
		return high
	case high == nil:
		return low
	case low.rank > high.rank:
		return low.but(low.low, join(low.high, high))
	}
	return high.but(join(low, high.low), high.high)
}

// split returns what is below k, the node of k, if any, and what is above.
func (n *node[K, V]) split(k K) (low, at, high *node[K, V]) {
	if n == nil {
		return nil, nil, nil
	}
	switch c := k.Compare(n.key); {
	case c < 0:
		low, at, high = n.low.split(k)
		return low, at, n.but(high, n.high)
	case c > 0:
		low, at, high = n.high.split(k)
		return n.but(n.low, low), at, high
	}
	return n.low, n, n.high
}

func (n *node[K, V]) all(yield func(K, V) bool) bool {
	return n == nil || n.low.all(yield) && yield(n.key, n.value) && n.high.all(yield)
}

func (n *node[K, V]) from(k K, yield func(K, V) bool) bool {
	switch {
	case n == nil:
		return true
	case k.Compare(n.key) > 0:
		return n.high.from(k, yield)
	}
	return n.low.from(k, yield) && yield(n.key, n.value) && n.high.all(yield)
}

// differ does not mind which of the two is which.
func differ[K Key[K], V comparable](a, b *node[K, V], yield func(K) bool) bool {
	if a == b {
		return true
	}
	if a == nil || b != nil && b.rank > a.rank {
		a, b = b, a
	}
	low, at, high := b.split(a.key)
	return differ(a.low, low, yield) &&
		(at != nil && at.value == a.value || yield(a.key)) &&
		differ(a.high, high, yield)
}
