package underway

import "sync/atomic"

// Sum is what follows from bytes that come in pieces of step.
func Sum(b []byte, step int) int {
	f, n := newFrames(new(atomic.Uint64)), 0
	for len(b) > 0 {
		k := min(step, len(b))
		n += f.take(b[:k])
		b = b[k:]
	}
	return n
}
