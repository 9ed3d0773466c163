// Package paced bounds how often each of many may do something: a token bucket for each,
// kept only while it is not full.
package paced

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Each has a bucket for each key. It is safe for any number of goroutines.
type Each[K comparable] struct {
	perSecond rate.Limit
	burst     int

	mu   sync.Mutex // guards the following
	by   map[K]*rate.Limiter
	next int // size at which to look for full buckets
}

// fewBuckets are never looked through.
const fewBuckets = 1024

// New returns buckets that hold burst and gain perSecond.
func New[K comparable](perSecond float64, burst int) *Each[K] {
	return &Each[K]{perSecond: rate.Limit(perSecond), burst: burst, by: map[K]*rate.Limiter{}, next: fewBuckets}
}

// Take takes n of key's tokens and returns zero and false, or takes none: after is the time
// until there are as many, and never is true where the bucket does not hold as many.
func (e *Each[K]) Take(key K, n int) (after time.Duration, never bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.by[key]
	if b == nil {
		e.forgetFull()
		b = rate.NewLimiter(e.perSecond, e.burst)
		e.by[key] = b
	}
	now := time.Now()
	r := b.ReserveN(now, n)
	if !r.OK() {
		return 0, true
	}
	if after = r.DelayFrom(now); after > 0 {
		r.CancelAt(now)
	}
	return after, false
}

// Allow reports whether there was a token of key's, and takes it.
func (e *Each[K]) Allow(key K) bool {
	after, never := e.Take(key, 1)
	return after == 0 && !never
}

// forgetFull forgets buckets that are full again: a new one is the same. The caller
// holds mu.
func (e *Each[K]) forgetFull() {
	if len(e.by) < e.next {
		return
	}
	for k, b := range e.by {
		if b.Tokens() >= float64(e.burst) {
			delete(e.by, k)
		}
	}
	e.next = max(fewBuckets, 2*len(e.by))
}
