package conns

import (
	"container/list"
	"errors"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// verifiedWithin is how long a connection may stay without a call by an agent that
// proved who it is. Everyone can make a host key and complete a handshake: without
// a bound whoever reaches the listener could take all its connections, and hold
// them. A join is one call, and takes less.
const verifiedWithin = 30 * time.Second

// handshakeBytes is how much a connection may send before its handshake is complete.
// crypto/tls holds a certificate until it is whole, up to 256 KiB; one with its chain has
// some KiB, and who is done may send at once.
const handshakeBytes = 32 << 10

// unverifiedBytes is how much such a connection may send. gRPC holds a message until
// it is whole and lets a connection carry many: 1,024 of 4 MiB, by our limits,
// before anybody is asked who they are. A join takes 2 KiB, and the first call of
// an agent on a new connection, for 64 SVIDs, 40 KiB.
const unverifiedBytes = 256 << 10

// vouchedWithin is how long a stranger may stay after its handshake. A join shows its
// token in its first call, which a client makes at once.
const vouchedWithin = 5 * time.Second

// Class is what is known of a connection on which no agent has called. Each has a
// room of its own, so that whoever fills one takes nothing from those in another.
type Class int

// The classes, in the order in which a connection may pass through them.
const (
	Shaking  Class = iota // its handshake is not complete
	Stranger              // it is, with a certificate of nobody
	Vouched               // its certificate is that of an agent of ours, or it showed a good token
	classes
)

// Limits are how many connections there may be on which no agent has called, by class,
// of one address (IPv4, or a /64 of IPv6) and of all, and of agents, each and all. None of
// them takes from another; where agents have all of theirs, the largest share gives way. A fleet behind one address that comes back at once is
// through in turns: a proof takes milliseconds, and an agent tries again.
type Limits struct {
	Source, All   [classes]int
	Agent, Agents int
}

// AgentsLimits are those of the agents' listener. An agent has one connection, and two for a
// moment when it opens the next.
func AgentsLimits() Limits {
	return Limits{
		Source: [classes]int{Shaking: 256, Stranger: 128, Vouched: 128},
		All:    [classes]int{Shaking: 4096, Stranger: 2048, Vouched: 2048},
		Agent:  8, Agents: 16384,
	}
}

var errUnverifiedBytes = errors.New("a connection that no agent called on sent too much")

// Listener closes connections on which no agent has called in time, or that send much
// before. Where there is no room the newcomer is let in, and the oldest of its class gives
// way: whoever holds many, from the newcomer's own address
// even, keeps nobody out.
type Listener struct {
	net.Listener
	within time.Duration
	limits Limits
	over   prometheus.Counter // connections that gave way

	mu         sync.Mutex              // guards the rest
	open       map[string]*Conn        // by remote address
	unverified queue                   // those whose agent is not verified
	sources    map[netip.Prefix]*queue // the same by source
	held       held                    // those that an agent called on
}

// queue is of connections whose agent is not verified, the oldest first.
type queue [classes]list.List // of *Conn

func (q *queue) len() int {
	n := 0
	for k := range q {
		n += q[k].Len()
	}
	return n
}

// Listen has connections of l, which are counted in over when they give way.
func Listen(l net.Listener, over prometheus.Counter) *Listener {
	return listen(l, verifiedWithin, AgentsLimits(), over)
}

func listen(l net.Listener, within time.Duration, most Limits, over prometheus.Counter) *Listener {
	return &Listener{
		Listener: l, within: within, limits: most, over: over,
		open: map[string]*Conn{}, sources: map[netip.Prefix]*queue{}, held: newHeld(),
	}
}

// Accept implements net.Listener.
func (u *Listener) Accept() (net.Conn, error) {
	conn, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return u.enter(conn), nil
}

// enter counts a connection in.
func (u *Listener) enter(conn net.Conn) *Conn {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := &Conn{Conn: conn, u: u, address: conn.RemoteAddr().String(), source: Source(AddrOf(conn.RemoteAddr()))}
	if old := u.open[c.address]; old != nil { // closed, and its address used again
		u.leave(old)
	}
	c.left.Store(handshakeBytes)
	c.timer = time.AfterFunc(u.within, func() {
		_ = conn.Close() // whoever reads from it gets the error
	})
	u.open[c.address] = c
	u.class(c, Shaking)
	return c
}

// class counts a connection whose agent is not verified in a class, and out of the one that
// it was in. The oldest of that class gives way, first of the connection's own address.
// The caller holds mu.
func (u *Listener) class(c *Conn, k Class) {
	q := u.sources[c.source]
	if q == nil {
		q = &queue{}
	}
	for _, full := range []struct {
		list *list.List
		most int
	}{{&q[k], u.limits.Source[k]}, {&u.unverified[k], u.limits.All[k]}} {
		if full.list.Len() >= full.most {
			u.cut(full.list.Front().Value.(*Conn)) //nolint:forcetypeassert // what it holds
		}
	}
	if c.in[0] != nil {
		c.in[0].Remove(c.at[0])
		c.in[1].Remove(c.at[1])
	}
	u.sources[c.source] = q // the one that gave way may have been its last
	c.class = k
	c.in = [2]*list.List{&u.unverified[k], &q[k]}
	c.at = [2]*list.Element{u.unverified[k].PushBack(c), q[k].PushBack(c)}
}

// cut closes a connection that gives way. The caller holds mu.
func (u *Listener) cut(c *Conn) {
	u.leave(c)
	u.over.Inc()
	_ = c.Conn.Close() // whoever reads from it gets the error
}

// leave counts a connection out. The caller holds mu.
func (u *Listener) leave(c *Conn) {
	delete(u.open, c.address)
	if c.of.Agent == "" {
		u.unqueue(c)
		return
	}
	u.held.remove(c)
}

// unqueue counts a connection out of those whose agent is not verified. The caller holds mu.
func (u *Listener) unqueue(c *Conn) {
	c.timer.Stop()
	for i, l := range c.in {
		l.Remove(c.at[i])
	}
	if u.sources[c.source].len() == 0 {
		delete(u.sources, c.source)
	}
}

// Source is who is counted as one: an address, or what a single IPv6 host has.
func Source(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero address has the zero prefix
	return p
}

// AddrOf is the address of the other end of a TCP connection, IPv4 where it is one.
func AddrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}

// Vouched counts the connection from addr apart from strangers': on it, a good token
// was shown.
func (u *Listener) Vouched(addr net.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.open[addr.String()]; c != nil && c.of.Agent == "" && c.class == Stranger {
		c.timer.Reset(u.within)
		u.class(c, Vouched)
	}
}

// shutTime and shutBytes are what a connection has left whose agent is not served
// any more: time to be told so, and what it takes to ask.
const (
	shutTime  = 2 * time.Second
	shutBytes = 64 << 10
)

// Shut closes the connections of agents that have no standing any more, in a while. What
// they send is bounded at once: no interceptor is asked before a message is whole.
func (u *Listener) Shut(standing func(agent string) bool) {
	u.mu.Lock()
	agents := slices.Collect(maps.Keys(u.held.by))
	u.mu.Unlock()
	agents = slices.DeleteFunc(agents, standing)
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, agent := range agents {
		for _, c := range u.held.by[agent] {
			if c.left.Load() > shutBytes {
				c.left.Store(shutBytes)
				time.AfterFunc(shutTime, func() { _ = c.Close() }) // whoever reads from it gets the error
			}
		}
	}
}

// Verified lets the connection from addr stay, on which an agent called and was let in. Where
// the agent has too many, those that another instance of it left go first; where all have,
// one of the largest share.
func (u *Listener) Verified(addr net.Addr, by Caller) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.open[addr.String()]
	if c == nil || c.of.Agent != "" {
		return
	}
	if len(u.held.by[by.Agent]) >= u.limits.Agent {
		u.cut(u.held.oldest(by.Agent, by))
	}
	u.unqueue(c)
	c.of = by
	u.held.add(c)
	c.left.Store(math.MaxInt64)
	if u.held.n > u.limits.Agents {
		u.cut(u.held.surplus(c))
	}
}

// Conn is one of its connections.
type Conn struct {
	net.Conn
	u       *Listener
	address string
	source  netip.Prefix
	timer   *time.Timer
	left    atomic.Int64 // bytes that it may still send

	// The following are guarded by u.mu.
	of    Caller           // that called on it
	class Class            // while no agent has called on it, as are the two below
	in    [2]*list.List    // of all and of its source
	at    [2]*list.Element // where in these
}

// Shook is called when the handshake is complete, with whether its certificate is an
// agent's of ours.
func (c *Conn) Shook(known bool) {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if c.u.open[c.address] != c || c.class != Shaking {
		return // it gave way meanwhile
	}
	c.left.Store(unverifiedBytes)
	if known {
		c.u.class(c, Vouched)
		return
	}
	c.timer.Reset(min(c.u.within, vouchedWithin))
	c.u.class(c, Stranger)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left.Add(-int64(n)) < 0 {
		return 0, errors.Join(errUnverifiedBytes, c.Close())
	}
	return n, err
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.u.mu.Lock()
	if c.u.open[c.address] == c { // another may have its address by now
		c.u.leave(c)
	}
	c.u.mu.Unlock()
	return c.Conn.Close()
}
