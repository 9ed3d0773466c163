// Package sampled bounds what strangers can make us write. Whoever reaches a
// port or a socket can be refused there as often as they like; each refusal is
// counted, the first few of a minute are told one by one, and the rest as a
// number, so that neither log nor store grows with the attempts.
//
// [Budget] is the mechanism, [Handler] puts it before a log.
//
// # Concurrency
// Both are safe for any number of goroutines.
package sampled

import (
	"sync"
	"time"
)

// Budget lets the first few events of each window through and counts the others.
// The zero value lets nothing through.
type Budget struct {
	// Most is how many pass in a window, PerKey how many of one key: a single
	// loud caller leaves room for the others.
	Most, PerKey int
	// Window is how long they count.
	Window time.Duration

	mu     sync.Mutex // guards the rest
	begun  time.Time  // of the window
	passed int
	by     map[string]int // what passed, by key: at most Most keys
	missed int            // what did not, since
	since  time.Time
}

// Take reports whether an event of key may be told. first is set with the first
// that may not since the last Missed: whoever tells the number has a reason to.
func (b *Budget) Take(now time.Time, key string) (ok, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil || now.Sub(b.begun) >= b.Window || now.Before(b.begun) {
		b.begun, b.passed, b.by = now, 0, map[string]int{}
	}
	if b.passed < b.Most && b.by[key] < b.PerKey {
		b.passed++
		b.by[key]++
		return true, false
	}
	if b.missed++; b.missed == 1 {
		b.since = now
		return false, true
	}
	return false, false
}

// Missed returns how many events were not let through since since, and forgets them.
func (b *Budget) Missed() (n int, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, since = b.missed, b.since
	b.missed = 0
	return n, since
}
