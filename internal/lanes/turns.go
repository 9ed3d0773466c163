package lanes

import (
	"context"
	"sync"
)

// Turns are taken before a lock by those of whom there may be many, so that whoever takes the lock
// without one waits for one of them at most. Of one owner one waits for the turn of all, and the
// others for that one, so that other owners come next.
type Turns struct {
	all sync.Mutex

	mu   sync.Mutex
	each map[string]*turn // by owner; guarded by mu
}

// turn is that of one owner.
type turn struct {
	taken chan struct{} // has room for one
	wait  int           // who wants it or has it; guarded by Turns.mu
}

// Owners is how many have the turn or wait for it.
func (t *Turns) Owners() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.each)
}

// Take waits for an owner's turn, and returns how to end it; an error if ctx ends before.
func (t *Turns) Take(ctx context.Context, owner string) (end func(), err error) {
	t.mu.Lock()
	of := t.each[owner]
	if of == nil {
		if t.each == nil {
			t.each = map[string]*turn{}
		}
		of = &turn{taken: make(chan struct{}, 1)}
		t.each[owner] = of
	}
	of.wait++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if of.wait--; of.wait == 0 {
			delete(t.each, owner)
		}
	}
	select {
	case of.taken <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	t.all.Lock()
	return func() {
		t.all.Unlock()
		<-of.taken
		leave()
	}, nil
}
