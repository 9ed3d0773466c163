package signer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"signet.example/internal/child"
	"signet.example/internal/unixsock"
)

// Inherited is the socket that Start gave this process. A signer that is a
// child calls it before anything else: it confines the process, too.
func Inherited() (net.Conn, error) {
	if err := child.Confine(); err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	unix.CloseOnExec(child.FirstFile)
	conn, err := unixsock.FromFile(os.NewFile(child.FirstFile, "signer socket"))
	if err != nil {
		return nil, fmt.Errorf("file descriptor %d is not the signer's socket: %w", child.FirstFile, err)
	}
	return conn, nil
}

// onceListener is a listener of one connection that is there already. It ends
// when that connection does.
type onceListener struct {
	conn chan net.Conn
	addr net.Addr
	gone chan struct{}
	once sync.Once
}

func listenOnce(conn net.Conn) *onceListener {
	l := &onceListener{conn: make(chan net.Conn, 1), addr: conn.LocalAddr(), gone: make(chan struct{})}
	l.conn <- &onceConn{Conn: conn, l: l}
	return l
}

// Accept returns the connection, then waits until it is closed.
func (l *onceListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.gone:
		return nil, io.EOF
	}
}

// Close ends Accept.
func (l *onceListener) Close() error {
	l.once.Do(func() { close(l.gone) })
	return nil
}

// Addr is the connection's.
func (l *onceListener) Addr() net.Addr { return l.addr }

type onceConn struct {
	net.Conn
	l *onceListener
}

// Close closes the connection and ends the listener.
func (c *onceConn) Close() error { return errors.Join(c.Conn.Close(), c.l.Close()) }
