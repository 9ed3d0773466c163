package underway

import (
	"cmp"
	"slices"
	"time"

	"signet.example/internal/overload"
)

// Age has the bytes of each connection so far count for half of what they did.
func (r *Room) Age() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		moved := c.moved.Load()
		c.lately, c.aged = c.lately/2+moved-c.aged, moved
	}
}

// pause is a time in which of some nothing is read: the kernel has them wait.
type pause struct {
	since time.Time
	over  chan struct{}
	// gave are those who gave way in it. Guarded by Room.mu.
	gave map[string]bool
}

// stops reports whether nothing of a connection is read in it. The caller holds mu.
func (p *pause) stops(c *Conn) bool { return c.class == unknown || p.gave[c.peer] }

// Pause implements overload.Connections.
func (r *Room) Pause() (resume func()) {
	p := &pause{since: time.Now(), over: make(chan struct{}), gave: map[string]bool{}}
	r.paused.Store(p)
	return func() {
		r.paused.Store(nil)
		close(p.over)
	}
}

// wait waits while nothing is read.
func (c *Conn) wait() {
	p := c.room.paused.Load()
	if p == nil {
		return
	}
	c.room.mu.Lock()
	stops := p.stops(c)
	c.room.mu.Unlock()
	if !stops {
		return
	}
	select {
	case <-p.over:
	case <-c.gone: // what it has is let go once nobody reads it
	}
}

// Suspects implements overload.Connections: peers that are not known, then those that are, and
// of each those first over whose connections most came and went lately or is under way.
func (r *Room) Suspects() []overload.Suspect {
	r.mu.Lock()
	defer r.mu.Unlock()
	type suspect struct {
		peer  string
		class int
	}
	p, weights := r.paused.Load(), map[suspect]int64{}
	for c := range r.open {
		if p == nil || !c.begun.After(p.since) || !p.stops(c) { // else nothing of it was read
			weights[suspect{c.peer, c.class}] += c.lately + c.moved.Load() - c.aged + int64(c.read-c.taken)
		}
	}
	out := make([]overload.Suspect, 0, len(weights))
	for s := range weights {
		out = append(out, overload.Suspect{Peer: s.peer, Class: s.class, GiveWay: func(why error) (int, func() bool) { return r.giveWay(s.peer, s.class, why) }})
	}
	slices.SortFunc(out, func(a, b overload.Suspect) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(weights[suspect{b.Peer, b.Class}], weights[suspect{a.Peer, a.Class}]), cmp.Compare(a.Peer, b.Peer))
	})
	return out
}

// Close closes all connections: whoever stops their servers does not wait for those that wait here.
func (r *Room) Close() {
	r.mu.Lock()
	var out []*Conn
	for c := range r.open {
		out = append(out, c)
		r.leave(c)
	}
	r.mu.Unlock()
	for _, c := range out {
		c.ending.Store(true)
		_ = c.Conn.Close() // whoever reads it gets the error
	}
}

// giveWay has all connections of a peer give way. They are gone when gRPC has closed them
// and their handlers have ended.
func (r *Room) giveWay(peer string, class int, why error) (n int, gone func() bool) {
	r.mu.Lock()
	if p := r.paused.Load(); p != nil {
		p.gave[peer] = true
	}
	var out []*Conn
	for c := range r.open {
		if c.peer == peer && c.class == class {
			out = append(out, c)
			r.leave(c)
		}
	}
	r.mu.Unlock()
	end(out, why)
	left := slices.Clone(out)
	return len(out), func() bool {
		left = slices.DeleteFunc(left, func(c *Conn) bool { return c.closed.Load() && c.going.Load() == 0 })
		return len(left) == 0
	}
}
