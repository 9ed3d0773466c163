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

// vouchedWithin is how long a stranger may stay after its handshake. A join shows its
// token in its first call, which a client makes at once.
const vouchedWithin = 5 * time.Second

// class is what is known of a connection on which no agent has called. Each has a
// room of its own, so that whoever fills one takes nothing from those in another.
type class int

const (
	shaking  class = iota // its handshake is not complete
	stranger              // it is, with a certificate of nobody
	vouched               // its certificate is that of an agent of ours, or it showed a good token
	classes
)

// room is how many connections there may be on which no agent has called, by class,
// of one address (IPv4, or a /64 of IPv6) and of all, and of agents, each and all. None of
// them takes from another. A fleet behind one address that comes back at once is
// through in turns: a proof takes milliseconds, and an agent tries again.
type room struct {
	source, all   [classes]int
	agent, agents int
}

// An agent has one connection, and two for a moment when it opens the next.
var agentsRoom = room{
	source: [classes]int{256, 128, 128}, all: [classes]int{4096, 2048, 2048},
	agent: 8, agents: maxConnections,
}

var errUnprovenBytes = errors.New("a connection that no agent called on sent too much")

// unproven is a listener that closes connections which nobody proved in time, or
// that send much before. Where there is no room the newcomer is let in, and the
// oldest of its class gives way: whoever holds many, from the newcomer's own address
// even, keeps nobody out.
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

// queue is of connections that nobody has proven, the oldest first.
type queue [classes]list.List // of *unprovenConn

func (q *queue) len() int {
	n := 0
	for k := range q {
		n += q[k].Len()
	}
	return n
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
	c.left.Store(unprovenBytes)
	c.timer = time.AfterFunc(u.within, func() {
		_ = conn.Close() // whoever reads from it gets the error
	})
	u.open[c.address] = c
	u.class(c, shaking)
	return c
}

// class counts a connection that nobody has proven in a class, and out of the one that
// it was in. The oldest of that class gives way, first of the connection's own address.
// The caller holds mu.
func (u *unproven) class(c *unprovenConn, k class) {
	q := u.sources[c.source]
	if q == nil {
		q = &queue{}
	}
	for _, full := range []struct {
		list *list.List
		most int
	}{{&q[k], u.room.source[k]}, {&u.young[k], u.room.all[k]}} {
		if full.list.Len() >= full.most {
			u.cut(full.list.Front().Value.(*unprovenConn)) //nolint:forcetypeassert // what it holds
		}
	}
	if c.in[0] != nil {
		c.in[0].Remove(c.at[0])
		c.in[1].Remove(c.at[1])
	}
	u.sources[c.source] = q // the one that gave way may have been its last
	c.class = k
	c.in = [2]*list.List{&u.young[k], &q[k]}
	c.at = [2]*list.Element{u.young[k].PushBack(c), q[k].PushBack(c)}
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

// vouched counts the connection from addr apart from strangers': on it, a good token
// was shown.
func (u *unproven) vouched(addr net.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.open[addr.String()]; c != nil && c.agent == "" && c.class == stranger {
		c.timer.Reset(u.within)
		u.class(c, vouched)
	}
}

// proven lets the connection from addr stay, on which this instance of an agent called
// and was let in. Where the agent has too many, those that another instance of it left
// go first.
func (u *unproven) proven(addr net.Addr, agent, instance string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.open[addr.String()]
	if c == nil || c.agent != "" {
		return
	}
	switch all := u.agents[agent]; {
	case len(all) >= u.room.agent:
		others := func(c *unprovenConn) bool { return c.instance != instance }
		u.cut(all[max(0, slices.IndexFunc(all, others))])
	case u.called >= u.room.agents:
		u.cut(c) // the others are in use
		return
	}
	u.grown(c)
	c.agent, c.instance = agent, instance
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

	// The following are guarded by u.mu.
	agent, instance string           // that called on it
	class           class            // while nobody has proven it, as are the two below
	in              [2]*list.List    // of all and of its source
	at              [2]*list.Element // where in these
}

// shook is called when the handshake is complete, with whether its certificate is an
// agent's of ours.
func (c *unprovenConn) shook(known bool) {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if c.u.open[c.address] != c || c.class != shaking {
		return // it gave way meanwhile
	}
	if known {
		c.u.class(c, vouched)
		return
	}
	c.timer.Reset(min(c.u.within, vouchedWithin))
	c.u.class(c, stranger)
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
