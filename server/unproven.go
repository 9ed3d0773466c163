package server

import (
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
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

var errUnprovenBytes = errors.New("a connection that no agent called on sent too much")

// unproven is a listener that closes connections which nobody proved in time, or
// that send much before.
type unproven struct {
	net.Listener
	within time.Duration

	mu    sync.Mutex
	young map[string]*unprovenConn // by remote address, guarded by mu
}

func newUnproven(l net.Listener, within time.Duration) *unproven {
	return &unproven{Listener: l, within: within, young: map[string]*unprovenConn{}}
}

// Accept implements net.Listener.
func (u *unproven) Accept() (net.Conn, error) {
	conn, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &unprovenConn{Conn: conn, u: u}
	c.left.Store(unprovenBytes)
	u.mu.Lock()
	defer u.mu.Unlock()
	c.timer = time.AfterFunc(u.within, func() {
		_ = conn.Close() // whoever reads from it gets the error
	})
	u.young[c.RemoteAddr().String()] = c
	return c, nil
}

// proven lets the connection from addr stay.
func (u *unproven) proven(addr net.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.young[addr.String()]; c != nil {
		c.timer.Stop()
		c.left.Store(math.MaxInt64)
		delete(u.young, addr.String())
	}
}

type unprovenConn struct {
	net.Conn
	u     *unproven
	timer *time.Timer
	left  atomic.Int64 // bytes that it may still send
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
	c.u.proven(c.RemoteAddr()) // before another connection can have its address
	return c.Conn.Close()
}
