package agent

import (
	"context"
	"sync"
)

// watched is a cell that holds the newest of a series of immutable values and
// wakes those who wait for the next. It is safe for any number of goroutines.
type watched[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

// get returns the value and a channel that is closed when it is replaced.
func (w *watched[T]) get() (T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.value, w.changed
}

func (w *watched[T]) load() T {
	v, _ := w.get()
	return v
}

func (w *watched[T]) set(v T) { w.update(func(T) T { return v }) }

// update replaces the value by what f makes of it. f must not change the old one.
func (w *watched[T]) update(f func(T) T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value = f(w.value)
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
}

// wait returns the first value that ok accepts, or ctx's error.
func (w *watched[T]) wait(ctx context.Context, ok func(T) bool) (T, error) {
	for {
		v, changed := w.get()
		if ok(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, ctx.Err()
		}
	}
}
