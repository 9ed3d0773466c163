// Package underway bounds the memory of what gRPC clients have sent and nobody has
// taken yet. gRPC keeps a message until it is whole and its handler reads it, and lets
// a connection carry many, before any interceptor is asked: numbers of connections,
// of calls and of bytes in a message are each sane, and their product is not.
//
// A [Room] counts bytes, of each connection, of each peer and of all. Where they are
// too many, the connection gives way whose bytes have been there longest: messages of
// those who mean them are whole and taken within milliseconds, so whoever holds many
// keeps nobody out.
//
// # Concurrency
//
// A Room is safe for any number of goroutines. Its lock is held for a few additions,
// and for a walk over its connections where one has to give way.
package underway

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
)

// What is counted beside the bytes themselves: the buffer and bookkeeping of each
// piece that waits, and the goroutine and context of each call.
const (
	perPiece  = 512
	perCall   = 4096
	perHeader = 64
)

// Most is what may be under way: on one connection, of one peer and of all, in bytes.
type Most struct{ Conn, Peer, All int }

// ErrFull is why a connection gave way.
var ErrFull = errors.New("too much was sent that is not whole or not read")

// Room counts what is under way on the connections of one or several servers.
type Room struct {
	most Most

	mu    sync.Mutex     // guards the following, and what Conn says is
	all   int            // bytes
	peers map[string]int // bytes, of those who hold any
	held  list.List      // of *Conn that hold some, those first whose bytes have been there longest
}

// New returns an empty room.
func New(m Most) *Room { return &Room{most: m, peers: map[string]int{}} }

// Bytes is how many bytes are under way.
func (r *Room) Bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// Conn is a connection of a Room.
type Conn struct {
	net.Conn
	room *Room
	// gaveWay is told why, before the connection is closed.
	gaveWay func(peer string, err error)
	frames  frames        // of whoever reads
	settled atomic.Uint64 // how often the last call of several ended
	ending  atomic.Bool   // it is we who close it
	left    atomic.Bool   // its other end closed it first

	// The following are guarded by room.mu.
	peer        string
	read, taken int           // bytes so far
	mark        int           // once so many are taken, all that was there when it was set is
	at          *list.Element // in room.held; nil where nothing is under way
	calls       int           // that are open
	out         bool          // it gave way or is closed
}

// Enter counts what comes over conn, which is plaintext HTTP/2. The server that reads
// it needs the Room's Handler. gaveWay may be nil.
func (r *Room) Enter(conn net.Conn, peer string, gaveWay func(peer string, err error)) *Conn {
	c := &Conn{Conn: conn, room: r, peer: peer, gaveWay: gaveWay}
	c.frames = newFrames(&c.settled)
	return c
}

// Belongs counts the connection as another peer's: more is known of it by now.
func (c *Conn) Belongs(peer string) {
	r := c.room
	r.mu.Lock()
	if c.out {
		r.mu.Unlock()
		return
	}
	under := c.read - c.taken
	r.count(c, -under)
	c.peer = peer
	r.count(c, under)
	out, err := r.tooMuch(c)
	r.mu.Unlock()
	end(out, err)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && endOfTheOther(err) && !c.ending.Load() {
		c.left.Store(true)
	}
	if came := c.frames.take(b[:n]); came != 0 {
		c.add(came)
	}
	return n, err
}

// endOfTheOther reports whether an error of reading says that the other end closed the
// connection. What is none of these may be ours: a close, a deadline.
func endOfTheOther(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// Left reports whether the connection's other end closed it, as the kernel does for a
// process that ended, before anything of ours did.
func (c *Conn) Left() bool { return c.left.Load() }

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.ending.Store(true)
	c.room.mu.Lock()
	c.room.leave(c)
	c.room.mu.Unlock()
	return c.Conn.Close()
}

// add counts bytes that came, or, below zero, such as nobody will take any more.
func (c *Conn) add(n int) {
	r := c.room
	r.mu.Lock()
	out, err := r.add(c, n)
	r.mu.Unlock()
	end(out, err)
}

// end closes those that gave way.
func end(out []*Conn, err error) {
	for _, c := range out {
		c.ending.Store(true)
		if c.gaveWay != nil {
			c.gaveWay(c.peer, err) // nobody changes it any more
		}
		_ = c.Conn.Close() // whoever reads it gets the error
	}
}

// add is Conn.add for who holds mu; it returns those that give way for it.
func (r *Room) add(c *Conn, n int) ([]*Conn, error) {
	if n < 0 {
		r.take(c, -n)
		return nil, nil
	}
	if c.out || n == 0 {
		return nil, nil
	}
	r.count(c, n)
	c.read += n
	if c.at == nil {
		c.mark, c.at = c.read, r.held.PushBack(c)
	}
	return r.tooMuch(c)
}

// count adds to the sums. The caller holds mu.
func (r *Room) count(c *Conn, n int) {
	r.all += n
	if r.peers[c.peer] += n; r.peers[c.peer] == 0 {
		delete(r.peers, c.peer)
	}
}

// take counts bytes that somebody took, or that are no more. The caller holds mu.
func (r *Room) take(c *Conn, n int) {
	n = min(n, c.read-c.taken)
	if c.out || n <= 0 {
		return
	}
	r.count(c, -n)
	c.taken += n
	switch {
	case c.taken == c.read:
		r.held.Remove(c.at)
		c.at = nil
	case c.taken >= c.mark:
		c.mark = c.read
		r.held.MoveToBack(c.at)
	}
}

// leave counts a connection out. The caller holds mu.
func (r *Room) leave(c *Conn) {
	r.take(c, c.read-c.taken)
	c.out = true
}

// tooMuch picks those that give way, until what came over c has room. The caller
// holds mu.
func (r *Room) tooMuch(c *Conn) (out []*Conn, err error) {
	for {
		var gives *Conn
		switch {
		case c.out:
		case c.read-c.taken > r.most.Conn:
			gives, err = c, fmt.Errorf("%w: %d bytes on one connection", ErrFull, c.read-c.taken)
		case r.peers[c.peer] > r.most.Peer:
			gives, err = r.oldest(c.peer), fmt.Errorf("%w: %d bytes of %s", ErrFull, r.peers[c.peer], c.peer)
		case r.all > r.most.All:
			gives, err = r.held.Front().Value.(*Conn), fmt.Errorf("%w: %d bytes of all", ErrFull, r.all) //nolint:forcetypeassert // what it holds
		}
		if gives == nil {
			return out, err
		}
		r.leave(gives)
		out = append(out, gives)
	}
}

// oldest is the connection of a peer whose bytes have been there longest. The caller
// holds mu.
func (r *Room) oldest(peer string) *Conn {
	for e := r.held.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*Conn); c.peer == peer { //nolint:forcetypeassert // what it holds
			return c
		}
	}
	return nil // internal error: it holds nothing
}

// local is the near address of a connection, by which its calls find it.
type local struct {
	net.Addr
	conn *Conn
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return local{c.Conn.LocalAddr(), c} }

// Of returns the connection that a call came over, nil where it is of no Room.
func Of(ctx context.Context) *Conn {
	if p, ok := peer.FromContext(ctx); ok {
		if l, ok := p.LocalAddr.(local); ok {
			return l.conn
		}
	}
	return nil
}

// Handler is told by a gRPC server what its handlers take.
func (r *Room) Handler() stats.Handler { return handler{} }

type handler struct{}

// call is one call. What it holds is counted until it ends; of the messages of a
// stream until its handler has read them: what it keeps of them is its own to bound.
type call struct {
	conn   *Conn
	stream bool
	size   int
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (handler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	c := Of(ctx)
	if c == nil {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, &call{conn: c})
}

// HandleRPC implements stats.Handler.
func (handler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.InHeader:
		c.size = perCall + sizeOf(s.Header)
	case *stats.Begin: // whose end is told; a method that there is not begins never
		c.stream = s.IsClientStream
		c.begin()
	case *stats.InPayload:
		if n := s.WireLength + perPiece; c.stream {
			c.conn.add(-n)
		} else {
			c.size += n
		}
	case *stats.End:
		c.end()
	}
}

func sizeOf(md metadata.MD) int {
	n := 0
	for k, vs := range md {
		n += perHeader
		for _, v := range vs {
			n += len(k) + len(v)
		}
	}
	return n
}

func (c *call) begin() {
	r := c.conn.room
	r.mu.Lock()
	c.conn.calls++
	out, err := r.add(c.conn, c.size)
	r.mu.Unlock()
	end(out, err)
}

// end gives back what the call holds, and with the last of a connection everything:
// nobody will take what was sent to calls that are over.
func (c *call) end() {
	r := c.conn.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(c.conn, c.size)
	if c.conn.calls--; c.conn.calls == 0 {
		c.conn.settled.Add(1)
		r.take(c.conn, c.conn.read-c.conn.taken)
	}
}

// TagConn implements stats.Handler.
func (handler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (handler) HandleConn(context.Context, stats.ConnStats) {}
