// Package watched hands on what one goroutine makes and others wait for: a
// [Value] is the newest of a series of immutable values, a [Signal] says only that
// something changed.
//
// # Concurrency
//
// Both are safe for any number of goroutines. Neither queues: a reader that is
// slow sees the newest value, not each one.
package watched

import (
	"context"
	"sync"
	"time"
)

// Value holds the newest of a series of immutable values and wakes those who wait
// for the next. Its zero value holds T's.
type Value[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

// Get returns the value and a channel that is closed when it is replaced.
func (v *Value[T]) Get() (T, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.value, v.changed
}

// Load returns the value.
func (v *Value[T]) Load() T {
	value, _ := v.Get()
	return value
}

// Set replaces the value.
func (v *Value[T]) Set(value T) { v.Update(func(T) T { return value }) }

// Update replaces the value by what f makes of it. f must not change the old one
// and must not call back.
func (v *Value[T]) Update(f func(T) T) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.value = f(v.value)
	if v.changed != nil {
		close(v.changed)
	}
	v.changed = make(chan struct{})
}

// Wait returns the first value that ok accepts, or the newest and ctx's error.
func (v *Value[T]) Wait(ctx context.Context, ok func(T) bool) (T, error) {
	for {
		value, changed := v.Get()
		if ok(value) {
			return value, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return value, ctx.Err()
		}
	}
}

// Signal wakes one reader, which receives from it.
type Signal chan struct{}

// NewSignal returns one that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Wake never waits: the reader has not yet seen the last one, or will see this one.
func (s Signal) Wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Sleep waits for d; false means that ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
