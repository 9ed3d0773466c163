package envoy

import (
	"fmt"
	"sync/atomic"
	"time"
)

// MostEarly is how long a task's application may be there after the agent was asked by its socket
// to stop: on ECS what asks may take 30 s, and then the application's own stopTimeout begins, 120 s at most.
const MostEarly = 150 * time.Second

// ParseEarly reads for how long the application may be there, as whoever asks says; where nothing
// is said, as by one of the version before, that is MostEarly.
func ParseEarly(said string) (time.Duration, error) {
	if said == "" {
		return MostEarly, nil
	}
	d, err := time.ParseDuration(said)
	if err != nil || d < 0 || d > MostEarly {
		return 0, fmt.Errorf("%.64q: want a duration, %s at most", said, MostEarly)
	}
	return d, nil
}

// StopOrder is who was stopped before whom. ECS stops the container that asks the agent, when that has
// ended the application, and when that has ended the agent's own: only then does its stop_timeout begin.
// Its methods can be called from any goroutine.
type StopOrder struct {
	early atomic.Pointer[time.Time] // until when, as the socket was told
	ended atomic.Bool
}

// Ask notes that the agent was asked to stop by its socket, and for how long the application may
// be there from now on. Asked again it can only be shorter.
func (o *StopOrder) Ask(application time.Duration) {
	until := time.Now().Add(min(application, MostEarly))
	for was := o.early.Load(); was == nil || until.Before(*was); was = o.early.Load() {
		if o.early.CompareAndSwap(was, &until) {
			return
		}
	}
}

// End notes that the agent's own container is stopped.
func (o *StopOrder) End() { o.ended.Store(true) }

// Early reports whether the application is stopped before this container, and may be there yet.
func (o *StopOrder) Early() bool {
	until := o.early.Load()
	return until != nil && !o.ended.Load() && time.Now().Before(*until)
}
