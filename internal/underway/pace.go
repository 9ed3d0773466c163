package underway

import (
	"container/list"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Who sends as fast as he can has the processors read what he sends, whatever it is: most
// kinds of frames mean nothing to gRPC, and are dropped. A connection that has always
// something to read never parks, and hundreds of them have everybody else wait for their
// slices of the Go scheduler. So what is read of a peer, over all of its connections, has a
// pace, and its connections take turns; those of all of whom nothing is known do so
// together. What waits, waits in the kernel.
const (
	// A pace is in bytes, and so many more for each frame, which is what one that means
	// nothing costs beside those of a call.
	perFrame = 256
	// A call costs what it sets going, whoever takes it or refuses it: some tens of microseconds.
	perCallPace = 8 << 10
	// So much a second, for each processor: some times what the calls of a proxy come to, and
	// what nobody needs who has nothing here.
	knownPace, strangersPace = 64 << 20, 4 << 20
	// lease is how long a turn lasts at most: gRPC may wait for the peer within it.
	lease = 10 * time.Millisecond
)

// pace is that of one peer.
type pace struct {
	limit *rate.Limiter
	turns *turns
	conns int // guarded by Room.mu
}

// paced is whose pace it is: somebody who is known by now has another one.
type paced struct {
	peer  string
	class int
}

// join has a connection go at its peer's pace. The caller holds mu.
func (r *Room) join(c *Conn) {
	p := r.paces[paced{c.peer, c.class}]
	if p == nil {
		p = &pace{turns: r.strangers}
		all := strangersPace
		if c.class == known {
			all, p.turns = knownPace, newTurns()
		}
		all *= runtime.GOMAXPROCS(0)
		p.limit = rate.NewLimiter(rate.Limit(all), all/4)
		r.paces[paced{c.peer, c.class}] = p
	}
	p.conns++
	c.pace.Store(p)
}

// quit ends that. The caller holds mu.
func (r *Room) quit(c *Conn) {
	p := c.pace.Load()
	p.turns.pass(c) // nobody may read it any more
	if p.conns--; p.conns == 0 {
		delete(r.paces, paced{c.peer, c.class})
	}
}

// Calls that are meant have more bytes than these, where there are many at once. Of a connection
// that has smaller ones little is read at a time, so that few run at once.
const (
	smallCall, manyCalls = 64, 32
	littleAtATime        = 2 << 10
)

// slow waits where what was read was more than the peer's pace, and for the connection's
// turn. The turn ends with the next look for more.
func (c *Conn) slow(read int) {
	if calls := c.frames.calls; calls > manyCalls && calls*smallCall > read {
		c.little = true
	}
	read += perFrame*c.frames.begun + perCallPace*c.frames.calls
	p := c.pace.Load()
	if after := p.limit.ReserveN(time.Now(), min(read, p.limit.Burst())).Delay(); after > 0 {
		t := time.NewTimer(after)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.gone:
		}
	}
	p.turns.take(c)
	c.turn = p.turns
}

// pass ends a connection's turn.
func (c *Conn) pass() {
	if c.turn != nil {
		c.turn.pass(c)
		c.turn = nil
	}
}

// turns are of connections of which a few at a time are read.
type turns struct {
	most int

	mu      sync.Mutex
	has     map[*Conn]time.Time // since when; guarded by mu, as is the next
	waiting list.List           // of *waiter
}

// waiter is a connection that waits for its turn, which is over when it is closed.
type waiter struct {
	conn *Conn
	turn chan struct{}
}

func newTurns() *turns {
	return &turns{most: max(1, runtime.GOMAXPROCS(0)/2), has: map[*Conn]time.Time{}}
}

// take waits for a turn: at most until a lease has ended for each that was there before.
func (t *turns) take(c *Conn) {
	t.mu.Lock()
	if t.waiting.Len() == 0 && len(t.has) < t.most {
		t.has[c] = time.Now()
		t.mu.Unlock()
		return
	}
	w := &waiter{c, make(chan struct{})}
	e := t.waiting.PushBack(w)
	t.next()
	t.mu.Unlock()
	timer := time.NewTimer(lease)
	defer timer.Stop()
	for {
		select {
		case <-w.turn:
			return
		case <-c.gone:
			t.mu.Lock()
			t.waiting.Remove(e) // nothing, where it is its turn
			t.mu.Unlock()
			return // pass gives a turn back that came meanwhile
		case <-timer.C:
			t.mu.Lock()
			t.next()
			t.mu.Unlock()
			timer.Reset(lease)
		}
	}
}

// pass gives a turn back.
func (t *turns) pass(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.has, c)
	t.next()
}

// next has those go on whose turn it is. The caller holds mu.
func (t *turns) next() {
	if t.waiting.Len() == 0 {
		return
	}
	now := time.Now()
	if len(t.has) >= t.most {
		for c, since := range t.has {
			if now.Sub(since) >= lease {
				delete(t.has, c)
			}
		}
	}
	for len(t.has) < t.most && t.waiting.Len() > 0 {
		w := t.waiting.Remove(t.waiting.Front()).(*waiter) //nolint:forcetypeassert // what it holds
		t.has[w.conn] = now
		close(w.turn)
	}
}
