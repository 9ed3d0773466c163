package fleet

import (
	"context"
	"sync"

	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/internal/watched"
)

// backlog is of reports of an agent whose endpoints change faster than they may: only the newest is
// kept. So whoever makes one proxy of a host come and go keeps nothing back that the host says of
// the others for longer than one change has to wait.
type backlog struct {
	mu     sync.Mutex
	on     bool        // there is a goroutine that takes what is kept
	newest *api.Report // nil where nothing came since it took the last one
}

// keep reports whether a report is taken later.
func (b *backlog) keep(m *api.Report) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		b.newest = m
	}
	return b.on
}

func (b *backlog) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = true
}

// next is what was kept. With nothing kept, reports are taken at once again.
func (b *backlog) next() *api.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.newest
	b.on, b.newest = m != nil, nil
	return m
}

// reported takes a report, at once or when its agent's endpoints may change again: all who call
// them are told of it each time. It never waits, since answers and signs of life come on the same
// session. One goroutine of a stream calls it.
func (r *Sessions) reported(ctx context.Context, s *stream, m *api.Report) {
	if s.backlog.keep(m) || !r.moves(s, m) {
		return
	}
	if after, never := r.changes.Take(s.peer.Agent.ID, 1); after == 0 || never {
		return
	}
	s.backlog.begin()
	r.receiving.Go(func() {
		for r.paced(ctx, s.peer.Agent.ID) {
			m := s.backlog.next()
			for m != nil && !r.moves(s, m) {
				m = s.backlog.next()
			}
			if m == nil {
				return
			}
		}
	})
}

// moves takes a report, and reports whether endpoints of its agent are others by it.
func (r *Sessions) moves(s *stream, m *api.Report) bool {
	before := r.endpointsOf(s.peer.Agent.ID)
	r.take(s, m)
	return r.endpointsOf(s.peer.Agent.ID) != before
}

// endpointsOf is another one whenever an agent's endpoints change.
func (r *Sessions) endpointsOf(agent string) *replicas {
	return r.known().endpoints().agents.Get(ordered.String(agent))
}

// paced waits until an agent's endpoints may change again. False where ctx has ended.
func (r *Sessions) paced(ctx context.Context, agent string) bool {
	for {
		after, never := r.changes.Take(agent, 1)
		if after == 0 || never {
			return true
		}
		if !watched.Sleep(ctx, after) {
			return false
		}
	}
}
