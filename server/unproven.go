package server

import (
	"container/list"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// provenWithin is how long a connection may stay without a call by an agent that
// proved who it is. Everyone can make a host key and complete a handshake: without
// a bound whoever reaches the listener could take all its connections, and hold
// them. A join is one call, and takes less.
const provenWithin = 30 * time.Second

// unprovenBytes is how much such a connection may send. gRPC holds a message until
// it is whole and lets a connection carry many: 1,024 of 4 MiB, by our limits,
// before anybody is asked who they are. A join takes 2 KiB, and the first call of
// an agent on a new connection, for 64 SVIDs, 40 KiB.
const unprovenBytes = 256 << 10

// room is how many connections there may be on which no agent has called, of one
// address (IPv4, or a /64 of IPv6) and of all, and of agents, each and all. None of
// the two takes from the other. A fleet behind one address that comes back at once is
// through in turns: a proof takes milliseconds, and an agent tries again.
type room struct{ source, unproven, agent, agents int }

// An agent has one connection, and two for a moment when it opens the next.
var agentsRoom = room{source: 256, unproven: 4096, agent: 8, agents: maxConnections}

var errUnprovenBytes = errors.New("a connection that no agent called on sent too much")

// unproven is a listener that closes connections which nobody proved in time, or
// that send much before. Where there is no room the newcomer is let in, and the
// oldest gives way: whoever holds many, from the newcomer's own address even, keeps
// nobody out.
type unproven struct {
	net.Listener
	within time.Duration
	room   room
	over   prometheus.Counter // connections that gave way

	mu      sync.Mutex                 // guards the rest
	open    map[string]*unprovenConn   // by remote address
	young   queue                      // those that nobody has proven
	sources map[netip.Prefix]*queue    // the same by source
	agents  map[string][]*unprovenConn // those that an agent called on, the oldest first, by agent
	called  int                        // how many these are
}

// queue is of connections that nobody has proven, the oldest first. One whose
// handshake is complete cost its owner something, and stays longer.
type queue struct{ raw, shaken list.List } // of *unprovenConn

func (q *queue) len() int { return q.raw.Len() + q.shaken.Len() }

// oldest is the one that gives way. The queue is not empty.
func (q *queue) oldest() *unprovenConn {
	at := q.raw.Front()
	if at == nil {
		at = q.shaken.Front()
	}
	return at.Value.(*unprovenConn) //nolint:forcetypeassert // what it holds
}

func newUnproven(l net.Listener, within time.Duration, r room, over prometheus.Counter) *unproven {
	return &unproven{
		Listener: l, within: within, room: r, over: over,
		open: map[string]*unprovenConn{}, sources: map[netip.Prefix]*queue{}, agents: map[string][]*unprovenConn{},
	}
}

// Accept implements net.Listener.
func (u *unproven) Accept() (net.Conn, error) {
	conn, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return u.enter(conn), nil
}

// enter counts a connection in.
func (u *unproven) enter(conn net.Conn) *unprovenConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := &unprovenConn{Conn: conn, u: u, address: conn.RemoteAddr().String(), source: sourceOf(conn.RemoteAddr())}
	if old := u.open[c.address]; old != nil { // closed, and its address used again
		u.leave(old)
	}
	q := u.sources[c.source]
	if q == nil {
		q = &queue{}
		u.sources[c.source] = q
	}
	if q.len() >= u.room.source {
		u.cut(q.oldest())
	} else if u.young.len() >= u.room.unproven {
		u.cut(u.young.oldest())
	}
	u.sources[c.source] = q // the one that gave way may have been its last
	c.left.Store(unprovenBytes)
	c.timer = time.AfterFunc(u.within, func() {
		_ = conn.Close() // whoever reads from it gets the error
	})
	c.in = [2]*list.List{&u.young.raw, &q.raw}
	c.at = [2]*list.Element{u.young.raw.PushBack(c), q.raw.PushBack(c)}
	u.open[c.address] = c
	return c
}

// cut closes a connection that gives way. The caller holds mu.
func (u *unproven) cut(c *unprovenConn) {
	u.leave(c)
	u.over.Inc()
	_ = c.Conn.Close() // whoever reads from it gets the error
}

// leave counts a connection out. The caller holds mu.
func (u *unproven) leave(c *unprovenConn) {
	delete(u.open, c.address)
	if c.agent == "" {
		u.grown(c)
		return
	}
	all := u.agents[c.agent]
	if i := slices.Index(all, c); i >= 0 {
		u.called--
		all = slices.Delete(all, i, i+1)
	}
	if u.agents[c.agent] = all; len(all) == 0 {
		delete(u.agents, c.agent)
	}
}

// grown counts a connection out of those that nobody has proven. The caller holds mu.
func (u *unproven) grown(c *unprovenConn) {
	c.timer.Stop()
	for i, l := range c.in {
		l.Remove(c.at[i])
	}
	if u.sources[c.source].len() == 0 {
		delete(u.sources, c.source)
	}
}

// sourceOf is who is counted as one: an address, or what a single IPv6 host has.
func sourceOf(a net.Addr) netip.Prefix { return prefixOf(addrOf(a)) }

func prefixOf(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero address has the zero prefix
	return p
}

// proven lets the connection from addr stay, on which an agent called.
func (u *unproven) proven(addr net.Addr, agent string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.open[addr.String()]
	if c == nil || c.agent != "" {
		return
	}
	switch {
	case len(u.agents[agent]) >= u.room.agent:
		u.cut(u.agents[agent][0])
	case u.called >= u.room.agents:
		u.cut(c) // the others are in use
		return
	}
	u.grown(c)
	c.agent = agent
	u.agents[agent] = append(u.agents[agent], c)
	u.called++
	c.left.Store(math.MaxInt64)
}

type unprovenConn struct {
	net.Conn
	u       *unproven
	address string
	source  netip.Prefix
	timer   *time.Timer
	left    atomic.Int64 // bytes that it may still send

	agent string           // that called on it; guarded by u.mu, as are the two below
	in    [2]*list.List    // of all and of its source, while nobody has proven it
	at    [2]*list.Element // where in these
}

// shook is called when the handshake is complete.
func (c *unprovenConn) shook() {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if c.u.open[c.address] != c || c.agent != "" {
		return // it gave way meanwhile
	}
	for i, q := range []*queue{&c.u.young, c.u.sources[c.source]} {
		c.in[i].Remove(c.at[i])
		c.in[i], c.at[i] = &q.shaken, q.shaken.PushBack(c)
	}
}

// Read implements net.Conn.
func (c *unprovenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left.Add(-int64(n)) < 0 {
		return 0, errors.Join(errUnprovenBytes, c.Close())
	}
	return n, err
}

// Close closes the connection.
func (c *unprovenConn) Close() error {
	c.u.mu.Lock()
	if c.u.open[c.address] == c { // another may have its address by now
		c.u.leave(c)
	}
	c.u.mu.Unlock()
	return c.Conn.Close()
}
