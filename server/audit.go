package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"signet.example/internal/plain"
	"signet.example/internal/sampled"
	"signet.example/store"
)

const (
	// refusalsNamed is how many refusals of one kind have an audit row of their own
	// in a minute, and how many of one caller; the others are one row together.
	refusalsNamed, refusalsPerCaller = 10, 3
	refusalsEvery                    = time.Minute
	// maxRefusal bounds the detail of such a row.
	maxRefusal = 512
	// pruneEvery is how often rows are looked for that are too old to keep.
	pruneEvery = time.Hour
)

// refusable are the actions that a stranger, or an agent, can have refused as
// often as they like. Each has a budget of its own.
var refusable = []string{"attest", "issue"}

// refusals writes refusals into the audit trail: the first few one by one, the
// rest of a minute as their number.
type refusals struct {
	audit  func(ctx context.Context, actor, action, detail string)
	clock  func() time.Time
	budget map[string]*sampled.Budget // by action; never changed
}

func newRefusals(clock func() time.Time, audit func(ctx context.Context, actor, action, detail string)) *refusals {
	r := &refusals{audit: audit, clock: clock, budget: map[string]*sampled.Budget{}}
	for _, action := range refusable {
		r.budget[action] = &sampled.Budget{Most: refusalsNamed, PerKey: refusalsPerCaller, Window: refusalsEvery}
	}
	return r
}

// refused notes that a caller was not given what it asked for.
func (r *refusals) refused(ctx context.Context, c *caller, action, why string) {
	key := c.remote.String()
	if c.agent.ID != "" {
		key = c.agent.ID
	}
	if ok, _ := r.budget[action].Take(r.clock(), key); ok {
		r.audit(ctx, c.String(), action, plain.Clip("refused: "+why, maxRefusal))
	}
}

// run writes the numbers of what had no row of its own, until ctx ends and then
// once more.
func (r *refusals) run(ctx context.Context) error {
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.tell(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			r.tell(ctx)
		}
	}
}

func (r *refusals) tell(ctx context.Context) {
	for _, action := range refusable {
		if n, since := r.budget[action].Missed(); n > 0 {
			r.audit(ctx, "server", action, fmt.Sprintf("refused: %d more like these since %s", n, plain.UTC(since)))
		}
	}
}

// runRetention deletes what is too old to keep, until ctx ends.
func (s *server) runRetention(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		s.prune(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *server) prune(ctx context.Context) {
	now := s.clock()
	n, err := s.store.Prune(ctx, store.Retention{Audit: now.Add(-s.cfg.Retention.Audit), Changes: now.Add(-s.cfg.Retention.Changes)})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.WarnContext(ctx, "what is too old to keep was not deleted", slog.Any("err", err))
	case n > 0:
		s.log.InfoContext(ctx, "deleted what was too old to keep; the audit trail has a row for it", slog.Int64("rows", n))
	}
}
