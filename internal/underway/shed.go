package underway

import (
	"cmp"
	"slices"

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

// Pause implements overload.Connections: of those of peers that are not known nothing more is
// read until resume is called. The kernel has them wait.
func (r *Room) Pause() (resume func()) {
	until := make(chan struct{})
	r.paused.Store(&until)
	return func() {
		r.paused.Store(nil)
		close(until)
	}
}

// wait waits while nothing is read.
func (c *Conn) wait() {
	until := c.room.paused.Load()
	if until == nil {
		return
	}
	c.room.mu.Lock()
	stranger := c.class == unknown
	c.room.mu.Unlock()
	if !stranger {
		return
	}
	select {
	case <-*until:
	case <-c.gone: // what it has is let go once nobody reads it
	}
}

// Suspects implements overload.Connections: those of peers that are not known, then those of
// peers that are, and of each those first of the peers over whose connections most came and
// went lately or is under way.
func (r *Room) Suspects() [][]overload.Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all [classes][]suspect
	peers := map[string]int64{}
	for c := range r.open {
		s := suspect{c, c.peer, c.lately + c.moved.Load() - c.aged + int64(c.read-c.taken)}
		all[c.class] = append(all[c.class], s)
		peers[s.peer] += s.weight
	}
	out := make([][]overload.Connection, 0, classes)
	for _, class := range all {
		slices.SortFunc(class, func(a, b suspect) int {
			return cmp.Or(cmp.Compare(peers[b.peer], peers[a.peer]), cmp.Compare(a.peer, b.peer), cmp.Compare(b.weight, a.weight))
		})
		list := make([]overload.Connection, 0, len(class))
		for _, s := range class {
			list = append(list, s)
		}
		out = append(out, list)
	}
	return out
}

// suspect is a connection as it was when its Room was asked.
type suspect struct {
	conn   *Conn
	peer   string
	weight int64
}

// GiveWay implements overload.Connection.
func (s suspect) GiveWay(why error) { s.conn.close(why) }
