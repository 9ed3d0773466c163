package dns

import (
	"container/list"
	"sync"
)

// room is for so many at a time, of which the oldest gives way: an answer takes milliseconds, so
// that whoever holds many that are never answered keeps nobody out (docs/decisions/029).
type room struct {
	mu   sync.Mutex
	most int
	in   list.List // of func(); the oldest first; guarded by mu
}

// enter takes a place until leave, or until end is called for one that comes.
func (r *room) enter(end func()) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in.Len() >= r.most {
		r.in.Remove(r.in.Front()).(func())() //nolint:forcetypeassert // as said
	}
	place := r.in.PushBack(end)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.in.Remove(place) // nothing, where it gave way
	}
}
