package lanes

import (
	"iter"
	"sync"
	"time"
)

// little is what looking at what an owner said may cost without a rest.
const little = 5 * time.Millisecond

// News are the newest of what each of many owners says, and which of them have said something
// that nobody has looked at. The zero value is ready. Saying never waits for who looks.
type News[T any] struct {
	mu      sync.Mutex
	latest  map[string]T         // guarded by mu, as is the rest
	news    map[string]bool      // of these owners
	rests   map[string]time.Time // they are looked at no sooner
	changed chan struct{}        // nil while nobody waits
}

// Say puts what an owner says in the place of what it said before.
func (n *News[T]) Say(owner string, what T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil {
		n.latest, n.news, n.rests = map[string]T{}, map[string]bool{}, map[string]time.Time{}
	}
	n.latest[owner], n.news[owner] = what, true
	n.wake()
}

// Forget drops an owner that has gone, unless it is there, which is asked under a lock.
func (n *News[T]) Forget(owner string, there func() bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.latest[owner]; known && !there() {
		delete(n.latest, owner)
		n.news[owner] = true
		n.wake()
	}
}

// wake needs mu.
func (n *News[T]) wake() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// Changed is closed at the next thing that there is to take.
func (n *News[T]) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// Of is what an owner says now.
func (n *News[T]) Of(owner string) T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest[owner]
}

// All is what each owner says now. It is gone over under a lock.
func (n *News[T]) All() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for owner, what := range n.latest {
			if !yield(owner, what) {
				return
			}
		}
	}
}

// New is what there is to take of those who are there. It is gone over under a lock.
func (n *News[T]) New() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for owner := range n.news {
			if what, there := n.latest[owner]; there && !yield(owner, what) {
				return
			}
		}
	}
}

// Take is what was said since it was last taken, and who has gone since. Those who rest stay
// for later.
func (n *News[T]) Take() (said map[string]T, gone []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	said = map[string]T{}
	for owner := range n.news {
		what, there := n.latest[owner]
		switch {
		case !there:
			gone = append(gone, owner)
			delete(n.rests, owner)
		case time.Now().Before(n.rests[owner]):
			continue
		default:
			said[owner] = what
		}
		delete(n.news, owner)
	}
	return said, gone
}

// Cost has an owner rest for a multiple of what it took to look at what it said.
func (n *News[T]) Cost(owner string, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if took < little {
		delete(n.rests, owner)
		return
	}
	n.rests[owner] = time.Now().Add(rest * took)
	time.AfterFunc(rest*took, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.wake()
	})
}
