package server

import (
	"net"
	"sync"
	"time"
)

// provenWithin is how long a connection may stay without a call by an agent that
// proved who it is. Everyone can make a host key and complete a handshake: without
// a bound whoever reaches the listener could take all its connections, and hold
// them. A join is one call, and takes less.
const provenWithin = 30 * time.Second

// unproven is a listener that closes connections which nobody proved in time.
type unproven struct {
	net.Listener
	within time.Duration

	mu     sync.Mutex
	timers map[string]*time.Timer // by remote address, guarded by mu
}

func newUnproven(l net.Listener, within time.Duration) *unproven {
	return &unproven{Listener: l, within: within, timers: map[string]*time.Timer{}}
}

// Accept implements net.Listener.
func (u *unproven) Accept() (net.Conn, error) {
	c, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.timers[c.RemoteAddr().String()] = time.AfterFunc(u.within, func() {
		_ = c.Close() // whoever reads from it gets the error
	})
	return &unprovenConn{c, u}, nil
}

// proven lets the connection from addr stay.
func (u *unproven) proven(addr net.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.timers[addr.String()]; t != nil {
		t.Stop()
		delete(u.timers, addr.String())
	}
}

type unprovenConn struct {
	net.Conn
	u *unproven
}

// Close implements net.Conn.
func (c *unprovenConn) Close() error {
	c.u.proven(c.RemoteAddr()) // before another connection can have its address
	return c.Conn.Close()
}
