package views

import (
	"context"
	"sync"
)

// turns are of streams that want a view. Making one takes up to tenths of a second under
// Views.mu, which what an operator does waits for, too, such as a ban: it waits for one
// stream at most, however many there are. An agent has one of its streams wait, so that
// those of others come next.
type turns struct {
	all sync.Mutex

	mu   sync.Mutex
	each map[string]*turn // by agent; guarded by mu
}

// turn is that of one agent's streams.
type turn struct {
	taken chan struct{} // has room for one
	wait  int           // who wants it or has it; guarded by turns.mu
}

// take waits for the turn of an agent's stream, and returns how to end it. It is in vain for
// one that has ended meanwhile: nobody would follow what is made for it.
func (t *turns) take(ctx context.Context, agent string) (end func(), err error) {
	t.mu.Lock()
	of := t.each[agent]
	if of == nil {
		if t.each == nil {
			t.each = map[string]*turn{}
		}
		of = &turn{taken: make(chan struct{}, 1)}
		t.each[agent] = of
	}
	of.wait++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if of.wait--; of.wait == 0 {
			delete(t.each, agent)
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

// ask locks mu for an agent's stream, and returns how to unlock it.
func (v *Views) ask(ctx context.Context, agent string) (end func(), err error) {
	leave, err := v.asking.take(ctx, agent)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	if err := ctx.Err(); err != nil {
		v.mu.Unlock()
		leave()
		return nil, err
	}
	return func() {
		v.mu.Unlock()
		leave()
	}, nil
}
