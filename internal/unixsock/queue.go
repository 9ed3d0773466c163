package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Queue is a listening socket of which each connection is judged before it becomes one of
// net's: what net makes of it costs several times what closing it does. It is for one
// goroutine, except for Close.
type Queue struct {
	listener *net.UnixListener
	file     *os.File // another descriptor of the same socket: of net's own nobody can wait for what comes
	closed   atomic.Bool
}

// NewQueue takes over l: it is closed with the Queue.
func NewQueue(l *net.UnixListener) (*Queue, error) {
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Addr(), err)
	}
	return &Queue{listener: l, file: f}, nil
}

// Close ends Next.
func (q *Queue) Close() error {
	q.closed.Store(true)
	return errors.Join(q.listener.Close(), q.file.Close())
}

// Refused is what a look into the queue closed.
type Refused struct {
	N    int
	Last Peer
	Took time.Duration // the whole look
}

// Next waits for connections and closes those that lets refuses, until there is one that it
// does not, which is returned, or most were closed.
func (q *Queue) Next(lets func(Peer) bool, most int) (c *net.UnixConn, r Refused, err error) {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return nil, r, q.failed(err)
	}
	fd := -1
	var inner error
	if err := raw.Read(func(queue uintptr) bool {
		begun := time.Now()
		fd, inner = take(int(queue), lets, most, &r)
		r.Took = time.Since(begun)
		return fd >= 0 || inner != nil || r.N > 0
	}); err != nil {
		return nil, r, q.failed(err)
	}
	if inner != nil {
		return nil, r, q.failed(os.NewSyscallError("accept4", inner))
	}
	if fd < 0 {
		return nil, r, nil
	}
	if c, err = FromFile(os.NewFile(uintptr(fd), "connection")); err != nil {
		if errno, ok := errors.AsType[unix.Errno](err); ok { // as too many files, which ends
			err = os.NewSyscallError("dup", errno)
		}
		return nil, r, q.failed(err)
	}
	return c, r, nil
}

// failed is an error as net has it of a listener.
func (q *Queue) failed(err error) error {
	if q.closed.Load() { // which os says in a word of its own
		err = net.ErrClosed
	}
	return &net.OpError{Op: "accept", Net: "unix", Source: q.listener.Addr(), Err: err}
}

// take closes what is in the queue until there is one that may come in, whose descriptor it
// returns, or nothing more, or most were closed.
func take(queue int, lets func(Peer) bool, most int, r *Refused) (fd int, err error) {
	for r.N < most {
		fd, _, err := unix.Accept4(queue, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case errors.Is(err, unix.EAGAIN):
			return -1, nil
		case err != nil:
			return -1, err
		}
		peer, err := peerOf(fd)
		if err == nil && lets(peer) {
			return fd, nil
		}
		_ = unix.Close(fd) // nothing was read from it
		if r.N++; err == nil {
			r.Last = peer
		}
	}
	return -1, nil
}
