package server

import (
	"container/list"
	"errors"
	"math"
	"net"
	"net/netip"
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

// Connections that nobody has proven, of one address (IPv4, or a /64 of IPv6)
// and of all. A fleet behind one address that comes back at once is through in
// turns: a proof takes milliseconds, and an agent tries again. Beyond the second
// the oldest gives way, so that whoever holds many keeps nobody out.
const (
	unprovenPerSource = 256
	unprovenOfAll     = 4096
)

var errUnprovenBytes = errors.New("a connection that no agent called on sent too much")

// unproven is a listener that closes connections which nobody proved in time, or
// that send much before.
type unproven struct {
	net.Listener
	within time.Duration
	over   prometheus.Counter // connections that were too many

	mu      sync.Mutex               // guards the rest
	young   map[string]*unprovenConn // by remote address
	order   list.List                // of *unprovenConn, the oldest first
	sources map[netip.Prefix]int     // how many of young are of each
}

func newUnproven(l net.Listener, within time.Duration, over prometheus.Counter) *unproven {
	return &unproven{Listener: l, within: within, over: over, young: map[string]*unprovenConn{}, sources: map[netip.Prefix]int{}}
}

// Accept implements net.Listener.
func (u *unproven) Accept() (net.Conn, error) {
	for {
		conn, err := u.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := u.enter(conn); c != nil {
			return c, nil
		}
		u.over.Inc()
		_ = conn.Close() // nothing was read
	}
}

// enter counts a connection in, or returns nil where its source has too many.
func (u *unproven) enter(conn net.Conn) *unprovenConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := &unprovenConn{Conn: conn, u: u, source: sourceOf(conn.RemoteAddr())}
	if old := u.young[conn.RemoteAddr().String()]; old != nil { // closed, and its address used again
		u.leave(old)
	}
	if u.sources[c.source] >= unprovenPerSource {
		return nil
	}
	if u.order.Len() >= unprovenOfAll {
		oldest := u.order.Front().Value.(*unprovenConn) //nolint:forcetypeassert // what it holds
		u.leave(oldest)
		u.over.Inc()
		_ = oldest.Conn.Close() // whoever reads from it gets the error
	}
	c.left.Store(unprovenBytes)
	c.timer = time.AfterFunc(u.within, func() {
		_ = conn.Close() // as above
	})
	u.sources[c.source]++
	c.at = u.order.PushBack(c)
	u.young[c.RemoteAddr().String()] = c
	return c
}

// leave counts a connection out. The caller holds mu.
func (u *unproven) leave(c *unprovenConn) {
	c.timer.Stop()
	u.order.Remove(c.at)
	if u.sources[c.source]--; u.sources[c.source] == 0 {
		delete(u.sources, c.source)
	}
	delete(u.young, c.RemoteAddr().String())
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

// proven lets the connection from addr stay.
func (u *unproven) proven(addr net.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.young[addr.String()]; c != nil {
		u.leave(c)
		c.left.Store(math.MaxInt64)
	}
}

type unprovenConn struct {
	net.Conn
	u      *unproven
	source netip.Prefix
	at     *list.Element // in u.order
	timer  *time.Timer
	left   atomic.Int64 // bytes that it may still send
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
	if c.u.young[c.RemoteAddr().String()] == c { // another may have its address by now
		c.u.leave(c)
	}
	c.u.mu.Unlock()
	return c.Conn.Close()
}
