package envoy

import (
	"sync/atomic"
	"time"
)

// mostEarly is how long a task's application may be there after the agent was asked by its socket
// to stop: on ECS what asks may take 30 s, and then the application's own stopTimeout begins, 120 s at most.
const mostEarly = 150 * time.Second

// StopOrder is who was stopped before whom. ECS stops the container that asks the agent, when that has
// ended the application, and when that has ended the agent's own: only then does its stop_timeout begin.
// Its methods can be called from any goroutine.
type StopOrder struct {
	asked atomic.Pointer[time.Time] // by the socket
	ended atomic.Bool
}

// Ask notes that the agent was asked to stop by its socket; the first time counts.
func (o *StopOrder) Ask() {
	now := time.Now()
	o.asked.CompareAndSwap(nil, &now)
}

// End notes that the agent's own container is stopped.
func (o *StopOrder) End() { o.ended.Store(true) }

// Early reports whether the application is stopped before this container, and may be there yet.
func (o *StopOrder) Early() bool {
	asked := o.asked.Load()
	return asked != nil && !o.ended.Load() && time.Since(*asked) < mostEarly
}
