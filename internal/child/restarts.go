package child

import (
	"errors"
	"time"
)

// ErrExited is why a child ended that exited as if it had done its work: Process.Err
// is nil then.
var ErrExited = errors.New("exited")

// Restarts is how long a process that ended is left before it is started again:
// from First to Most, doubled each time, and anew after one that lived for Settled.
// It belongs to the one goroutine that starts the process.
type Restarts struct{ First, Most, Settled, next time.Duration }

// After returns the pause before the next start of a process that lived for so long.
func (r *Restarts) After(lived time.Duration) time.Duration {
	if r.next == 0 || lived > r.Settled {
		r.next = r.First
	}
	pause := r.next
	r.next = min(2*pause, r.Most)
	return pause
}
