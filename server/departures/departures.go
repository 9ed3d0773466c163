// Package departures forgets the agents of tasks that have ended: a task does not come back,
// and the next of its kind is another agent. What is here decides who has ended: one whose
// agent said so as it stopped, and one that has no session for a while after its
// certificate's end, in which there was a server.
//
// It must not know how an agent is forgotten, nor by what a task joins.
//
// # Concurrency
//
// [Departures] may be used by any number of goroutines. Run is one of its own.
package departures

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/server/fleet"
)

const (
	// Grace is how long after its certificate's end an agent without a session is kept, and after
	// the start of the server to which it could come back.
	Grace = 10 * time.Minute
	// sweepEvery is how often those are looked for.
	sweepEvery = time.Minute
	// together is how long the first that says goodbye waits for others: each time that agents
	// are forgotten all who follow the store look at it.
	together = 100 * time.Millisecond
	// atOnce bounds how many are forgotten before whoever writes to the store has a turn.
	atOnce = 200
)

// Config of Departures. Every field is needed.
type Config struct {
	// Ends reports whether agents that joined by a method are those of tasks.
	Ends func(method string) bool
	// Agents are all that joined, and Agent finds one of them.
	Agents func() []fleet.Status
	Agent  func(id string) (fleet.Status, bool)
	// CaughtUp returns when all of their certificates are known that were issued, or why
	// they are not: one that is not known of may be good.
	CaughtUp func(ctx context.Context) error
	// Serves reports whether a run of an agent is the one that was let in last.
	Serves func(agent, instance string) bool
	// Forget lets go of agents for good, except those that are banned and those that have not
	// ended any more when it has its turn. In the audit trail it is their own doing where they
	// said so, else the server's.
	Forget func(ctx context.Context, ids []string, ended func(id string) bool, theySaid bool) error
	Log    *slog.Logger
	Clock  func() time.Time
}

// Departures are those that are under way.
type Departures struct {
	cfg   Config
	begun time.Time // until then nobody could come back to this server
	wake  watched.Signal

	mu   sync.Mutex
	said map[string]string // by agent id, the run that said goodbye; guarded by mu
}

// New returns Departures of nobody.
func New(cfg Config) *Departures {
	return &Departures{cfg: cfg, begun: cfg.Clock(), wake: watched.NewSignal(), said: map[string]string{}}
}

// Goodbye notes that a run of an agent ends, and that no other one follows. Whose it is its
// connection has proven. It waits for nothing.
func (d *Departures) Goodbye(agent, instance string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said[agent] = instance
	d.wake.Wake()
}

// Run forgets those that have ended, until ctx ends.
func (d *Departures) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			watched.Sleep(ctx, together)
			said := d.left()
			d.forget(ctx, slices.Sorted(maps.Keys(said)), func(id string) bool { return d.cfg.Serves(id, said[id]) }, true)
		case <-tick.C:
			d.forget(ctx, d.gone(ctx), d.goneStill, false)
		}
	}
}

// left takes those that said goodbye, each with the run that did. An agent that came back
// meanwhile, with another run, has not ended.
func (d *Departures) left() map[string]string {
	d.mu.Lock()
	said := d.said
	d.said = map[string]string{}
	d.mu.Unlock()
	maps.DeleteFunc(said, func(agent, instance string) bool { return !d.cfg.Serves(agent, instance) })
	return said
}

// gone are the agents of tasks that cannot come back by what they have.
func (d *Departures) gone(ctx context.Context) []string {
	if err := d.cfg.CaughtUp(ctx); err != nil {
		d.cfg.Log.WarnContext(ctx, "tasks that ended are not looked for", slog.Any("err", err))
		return nil
	}
	now, list := d.cfg.Clock(), []string(nil)
	if now.Sub(d.begun) <= Grace { // after an outage of the servers those that live come back
		return nil
	}
	for _, st := range d.cfg.Agents() {
		if d.isGone(st, now) {
			list = append(list, st.Agent.ID)
		}
	}
	return list
}

// isGone reports whether an agent is that of a task that cannot come back by what it has.
func (d *Departures) isGone(st fleet.Status, now time.Time) bool {
	return st.State == api.AgentInfo_GONE && d.cfg.Ends(st.Agent.Method) && now.Sub(st.End) > Grace
}

// goneStill looks again at one of those that are gone: it may have come back since.
func (d *Departures) goneStill(id string) bool {
	st, ok := d.cfg.Agent(id)
	return ok && d.isGone(st, d.cfg.Clock())
}

// forget lets go of them, and tells what could not be: a sweep tries again.
func (d *Departures) forget(ctx context.Context, ids []string, ended func(id string) bool, theySaid bool) {
	for some := range slices.Chunk(ids, atOnce) {
		if err := d.cfg.Forget(ctx, some, ended, theySaid); err != nil && ctx.Err() == nil {
			d.cfg.Log.WarnContext(ctx, "agents of tasks that ended are still there", slog.Int("agents", len(some)), slog.Any("err", err))
		}
	}
}
