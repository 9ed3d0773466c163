package access

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/internal/sampled"
)

const (
	// refusalsNamed is how many refusals of one kind have an audit row of their own
	// in a minute, and how many of one caller; the others are one row together.
	refusalsNamed, refusalsPerCaller = 10, 3
	refusalsEvery                    = time.Minute
	// maxRefusal bounds the detail of such a row.
	maxRefusal = 512
)

// Action is what a stranger, or an agent, can have refused as often as they like, as the
// audit trail has it. Each has a budget of its own.
type Action string

// The actions there are.
const (
	ActionAttest Action = "attest"
	ActionIssue  Action = "issue"
	// ActionRefuse is not what we refuse: an agent says that its proxies refused something.
	ActionRefuse Action = "refuse"
)

// audited are the methods whose refusals stand in the audit trail.
var audited = map[string]Action{
	api.AgentAPI_Attest_FullMethodName: ActionAttest,
	api.AgentAPI_Issue_FullMethodName:  ActionIssue,
}

// bounded are the actions that have a budget.
func bounded() []Action {
	return append(slices.Compact(slices.Sorted(maps.Values(audited))), ActionRefuse)
}

// Refusals writes refusals into the audit trail: the first few one by one, the
// rest of a minute as their number.
type Refusals struct {
	audit  func(ctx context.Context, actor, action, detail string)
	clock  func() time.Time
	budget map[Action]*sampled.Budget // by action; never changed
}

// NewRefusals has noted none.
func NewRefusals(clock func() time.Time, audit func(ctx context.Context, actor, action, detail string)) *Refusals {
	r := &Refusals{audit: audit, clock: clock, budget: map[Action]*sampled.Budget{}}
	for _, action := range bounded() {
		r.budget[action] = &sampled.Budget{Most: refusalsNamed, PerKey: refusalsPerCaller, Window: refusalsEvery}
	}
	return r
}

// Refused notes that a caller was not given what it asked for.
func (r *Refusals) Refused(ctx context.Context, c *Caller, action Action, why string) {
	key := c.Remote.String()
	if c.Agent.ID != "" {
		key = c.Agent.ID
	}
	r.note(ctx, key, c.String(), action, "refused: "+why)
}

// Reported notes what an agent, of a SPIFFE ID, says that its proxies refused.
func (r *Refusals) Reported(ctx context.Context, spiffeID, what string) {
	r.note(ctx, spiffeID, spiffeID, ActionRefuse, what)
}

func (r *Refusals) note(ctx context.Context, key, actor string, action Action, detail string) {
	if ok, _ := r.budget[action].Take(r.clock(), key); ok {
		r.audit(ctx, actor, string(action), plain.Clip(detail, maxRefusal))
	}
}

// Run writes the numbers of what had no row of its own, until ctx ends and then
// once more.
func (r *Refusals) Run(ctx context.Context) error {
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.Tell(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			r.Tell(ctx)
		}
	}
}

// Tell writes the numbers that are owed.
func (r *Refusals) Tell(ctx context.Context) {
	for _, action := range bounded() {
		if n, since := r.budget[action].Missed(); n > 0 {
			r.audit(ctx, "server", string(action), fmt.Sprintf("refused: %d more like these since %s", n, plain.UTC(since)))
		}
	}
}
