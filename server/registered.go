package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"signet.example/internal/ordered"
	"signet.example/xds"
)

// registered is an immutable picture for building views: what is registered, by
// virtual node. Another picture is another pointer.
type registered struct {
	by ordered.Map[nodeRef, *replicas]
}

// replicas are the endpoints of one virtual node, by agent and proxy.
type replicas struct{ list []*endpoint }

func (r *registered) of(at nodeRef) []*endpoint {
	if known := r.by.Get(at); known != nil {
		return known.list
	}
	return nil
}

func byKey(n *endpoint, key string) int { return strings.Compare(n.key(), key) }

// with is the picture with n, whose proxy is not in it.
func (r *registered) with(n *endpoint) *registered {
	at, list := nodeRef{n.Mesh, n.Node}, r.of(nodeRef{n.Mesh, n.Node})
	i, _ := slices.BinarySearchFunc(list, n.key(), byKey)
	return &registered{r.by.With(at, &replicas{slices.Insert(slices.Clone(list), i, n)})}
}

// without is the picture without n, which is in it.
func (r *registered) without(n *endpoint) *registered {
	at, list := nodeRef{n.Mesh, n.Node}, r.of(nodeRef{n.Mesh, n.Node})
	i, _ := slices.BinarySearchFunc(list, n.key(), byKey)
	if len(list) == 1 {
		return &registered{r.by.Without(at)}
	}
	return &registered{r.by.With(at, &replicas{slices.Delete(slices.Clone(list), i, i+1)})}
}

// at is what is registered for a port. A node that has proxies but none on the
// port has an empty list there, not nil: its cluster stays EDS.
func (r *registered) at(mesh, node string, port uint32) []xds.Endpoint {
	known := r.of(nodeRef{mesh, node})
	if known == nil {
		return nil
	}
	list := []xds.Endpoint{}
	for _, n := range known {
		if slices.Contains(n.Ports, port) {
			list = append(list, xds.Endpoint{Address: n.Address, Port: port, Healthy: n.Healthy})
		}
	}
	return list
}

// differ lists the virtual nodes of which callers are told something else.
func (r *registered) differ(from *registered) []nodeRef {
	var list []nodeRef
	for at := range r.by.Differ(from.by) {
		if !slices.EqualFunc(r.of(at), from.of(at), (*endpoint).serves) {
			list = append(list, at)
		}
	}
	return list
}

// run drops the endpoints whose grace is over, and keeps the file, until ctx ends.
// It sleeps while nothing changes and nothing is due.
func (e *endpoints) run(ctx context.Context) error {
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
		if rest := saveEvery - e.clock().Sub(last); rest <= 0 {
			e.save(ctx)
			last = e.clock()
		} else if e.snapshot() != e.saved {
			next = min(next, rest)
		}
		timer.Reset(next)
	}
}

// expire drops the endpoints whose grace is over, and returns when the next one is.
func (e *endpoints) expire() time.Duration {
	e.mu.Lock()
	before, next := e.now, time.Duration(never)
	for len(e.leaving) > 0 {
		n := e.leaving[0]
		if left := e.grace - e.clock().Sub(n.Gone); left > 0 && e.of(n) == n {
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

// review drops the endpoints that keep refuses: the binding is gone, the agent is
// banned or deleted. It looks at each, so it is called when one of those changed.
func (e *endpoints) review(keep func(*endpoint) bool) {
	e.mu.Lock()
	before := e.now
	for _, own := range e.agents {
		for _, n := range slices.Collect(maps.Values(own)) {
			if !keep(n) {
				e.drop(n)
			}
		}
	}
	e.finish(before)
}

// save writes the file, if there is anything new. Only run calls it.
func (e *endpoints) save(ctx context.Context) {
	now := e.snapshot()
	if now == e.saved {
		return
	}
	list := []*endpoint{}
	for _, known := range now.by.All() {
		list = append(list, known.list...)
	}
	slices.SortFunc(list, func(a, b *endpoint) int { return byKey(a, b.key()) })
	if err := writeJSON(e.path, list); err != nil {
		e.log.WarnContext(ctx, "endpoints", slog.Any("err", fmt.Errorf("remember endpoints: %w", err)))
		return
	}
	e.saved = now
}
