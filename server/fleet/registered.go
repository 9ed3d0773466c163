package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"signet.example/internal/durable"
	"signet.example/internal/ordered"
	"signet.example/proxy"
)

// Registered is an immutable picture for building views: what is registered, by
// virtual node. Another picture is another pointer.
type Registered struct {
	by ordered.Map[proxy.Ref, *replicas]
}

// replicas are the endpoints of one virtual node, by agent and proxy.
type replicas struct{ list []*Endpoint }

// Of lists what is registered for a virtual node, by agent and proxy.
func (r *Registered) Of(at proxy.Ref) []*Endpoint {
	if known := r.by.Get(at); known != nil {
		return known.list
	}
	return nil
}

func byKey(n *Endpoint, key string) int { return strings.Compare(n.key(), key) }

// with is the picture with n, whose proxy is not in it.
func (r *Registered) with(n *Endpoint) *Registered {
	at, list := n.Ref(), r.Of(n.Ref())
	i, _ := slices.BinarySearchFunc(list, n.key(), byKey)
	return &Registered{r.by.With(at, &replicas{slices.Insert(slices.Clone(list), i, n)})}
}

// without is the picture without n, which is in it.
func (r *Registered) without(n *Endpoint) *Registered {
	at, list := n.Ref(), r.Of(n.Ref())
	i, _ := slices.BinarySearchFunc(list, n.key(), byKey)
	if len(list) == 1 {
		return &Registered{r.by.Without(at)}
	}
	return &Registered{r.by.With(at, &replicas{slices.Delete(slices.Clone(list), i, i+1)})}
}

// Differ lists the virtual nodes of which callers are told something else.
func (r *Registered) Differ(from *Registered) []proxy.Ref {
	var list []proxy.Ref
	for at := range r.by.Differ(from.by) {
		if !slices.EqualFunc(r.Of(at), from.Of(at), (*Endpoint).serves) {
			list = append(list, at)
		}
	}
	return list
}

// Run drops the endpoints whose grace is over, and keeps the file, until ctx ends.
// It sleeps while nothing changes and nothing is due.
func (e *Endpoints) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer e.save(context.WithoutCancel(ctx))
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		case <-timer.C:
		}
		next := e.expire()
		if rest := saveEvery - e.cfg.Clock().Sub(last); rest <= 0 {
			e.save(ctx)
			last = e.cfg.Clock()
		} else if e.Snapshot() != e.saved {
			next = min(next, rest)
		}
		timer.Reset(next)
	}
}

// expire drops the endpoints whose grace is over, and returns when the next one is.
func (e *Endpoints) expire() time.Duration {
	e.mu.Lock()
	before, next := e.now, time.Duration(never)
	for len(e.leaving) > 0 {
		n := e.leaving[0]
		if left := e.cfg.Grace - e.cfg.Clock().Sub(n.Gone); left > 0 && e.of(n) == n {
			next = left
			break
		}
		if e.leaving = e.leaving[1:]; e.of(n) == n { // else it came back, or went for another reason
			e.drop(n)
		}
	}
	e.finish(before)
	return next
}

// never is how long there is to wait for what is not due.
const never = 1<<63 - 1

// Review drops the endpoints of those that may not host any more: the binding is gone,
// the agent is banned or deleted. It looks at each, so it is called when one of those changed.
func (e *Endpoints) Review() {
	e.mu.Lock()
	before := e.now
	for _, own := range e.agents {
		for _, n := range slices.Collect(maps.Values(own)) {
			if !e.cfg.Hosts.MayHost(n.Agent, n.Ref()) {
				e.drop(n)
			}
		}
	}
	e.finish(before)
}

// save writes the file, if there is anything new. Only Run calls it.
func (e *Endpoints) save(ctx context.Context) {
	now := e.Snapshot()
	if now == e.saved {
		return
	}
	list := []*Endpoint{}
	for _, known := range now.by.All() {
		list = append(list, known.list...)
	}
	slices.SortFunc(list, func(a, b *Endpoint) int { return byKey(a, b.key()) })
	if err := durable.WriteJSON(e.cfg.Path, list); err != nil {
		e.cfg.Log.WarnContext(ctx, "endpoints", slog.Any("err", fmt.Errorf("remember endpoints: %w", err)))
		return
	}
	e.saved = now
}
