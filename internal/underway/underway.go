// Package underway bounds the memory of what gRPC clients have sent and nobody has
// taken yet. gRPC keeps a message until it is whole and its handler reads it, and lets
// a connection carry many, before any interceptor is asked: numbers of connections,
// of calls and of bytes in a message are each sane, and their product is not.
//
// A [Room] counts bytes, of each connection, of each peer, of peers that share one, and of all. Where they are
// too many, the connection gives way whose bytes have been there longest: messages of
// those who mean them are whole and taken within milliseconds, so whoever holds many
// keeps nobody out. Those who are known and those who are not have a room each.
//
// What a connection holds as long as it is quiet, its open calls, is bounded by how many
// connections and streams there may be: so much is not counted, and no reason to give way.
// Calls and control frames beyond that are, and so are answers that a peer does not read:
// of one that is given nothing at once, of others when they have waited for long while
// little was read. A peer that reads nothing at all is closed.
//
// # Concurrency
//
// A Room is safe for any number of goroutines. Its lock is held for a few additions,
// and for a walk over its connections where one has to give way. The lock of a
// connection's streams is taken alone or within it. What is kept beside messages is a sum
// of its own, atomic, of which the Room is told where it is more than is free.
package underway

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"
)

// What is counted beside the bytes themselves: the buffer and bookkeeping of each
// piece that waits, and the goroutine and context of each call.
const (
	perPiece  = 512
	perCall   = 4096
	perHeader = 64
	// perControl is the answer to a control frame, of which gRPC keeps ten thousand.
	perControl = 128
	// writeQuota is what gRPC keeps of a call's answers before its handler has to wait, which
	// the last of them may exceed.
	writeQuota = 64 << 10
	// writeBuffer is what gRPC writes at once, or less where it has nothing more to do.
	writeBuffer = 32 << 10
)

// What is free of what a connection keeps beside messages: something for each connection,
// which itself takes more, and as much as a stream of usual headers takes for each of those
// that began and have no end of their own.
const (
	freeConn   = 16 << 10
	freeStream = 12 << 10
	// step is how much of what is not free may come or go before the Room is told.
	step = 8 << 10
)

// patience is for how long a peer may not read: what waits longer is counted, and one to
// which nothing at all can be written is closed.
const patience = 20 * time.Second

// slow is how many bytes a second a peer reads who means to. A host of many proxies may need
// minutes for what it is pushed at once, and has nothing whole before the end: gRPC writes
// to all streams of a connection in turn.
const slow = 50 << 10

const (
	// idle is how long gRPC's writer writes nothing, where it has nothing left to pass.
	idle = 250 * time.Millisecond
	// blocked is for how long a write may last while streams are begun and reset, and
	// mostBlocked how many of them: twice what any server of ours takes at once.
	blocked     = 2 * time.Second
	mostBlocked = 2048
)

// Most is what may be under way: on one connection, of one peer, of all who are known,
// and of all others, in bytes; and of all peers that share one, where any do.
type Most struct{ Conn, Peer, All, Others, Share int }

// Why a connection gave way.
var (
	ErrFull   = errors.New("too much was sent that is not whole or not read")
	ErrUnread = errors.New("its peer does not read")
)

// Room counts what is under way on the connections of one or several servers.
type Room struct {
	most     Most
	patience time.Duration
	made     sync.Map // what a message takes as objects, in bytes, by the message, until its call is told of it
	blocked  time.Duration

	mu    sync.Mutex         // guards the following, and what Conn says is
	all   [classes]int       // bytes
	peers tally              // bytes, of those who hold any
	share tally              // bytes, of the shares that any hold
	held  [classes]list.List // of *Conn that hold some, those first whose bytes have been there longest
	open  map[*Conn]struct{} // that did not give way and are not closed
	paces map[paced]*pace    // of who has any

	paused    atomic.Pointer[pause] // nil where reading goes on
	strangers *turns                // of those who are not known, together
}

// Of a connection nothing is known yet, or it is of somebody who has something here.
const (
	unknown = iota
	known
	classes
)

// New returns an empty room.
func New(m Most) *Room {
	return &Room{most: m, patience: patience, blocked: blocked, peers: tally{}, share: tally{}, open: map[*Conn]struct{}{}, paces: map[paced]*pace{}, strangers: newTurns()}
}

// Bytes is how many bytes are under way.
func (r *Room) Bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[unknown] + r.all[known]
}

// Conn is a connection of a Room.
type Conn struct {
	net.Conn
	room *Room
	// gaveWay is told why, before the connection is closed.
	gaveWay func(peer string, err error)
	frames  frames // of whoever reads
	turn    *turns // of whoever reads: that it has; nil for none
	little  bool   // of whoever reads: it sends many calls that nobody means
	// refusable are calls that may be sent to be refused; of whoever reads, nil before the first.
	refusable *rate.Limiter
	written   written // of whoever writes
	streams   streams
	settled   atomic.Uint64 // how often the last call of several ended
	ending    atomic.Bool   // it is we who close it
	closed    atomic.Bool   // gRPC has
	left      atomic.Bool   // its other end closed it first

	keeps   atomic.Int64 // beside messages that came: calls, and answers to control frames
	control atomic.Int64 // of keeps, for control frames
	answers atomic.Int64 // bytes of messages that gRPC was given and has not written
	sent    atomic.Int64 // that it has written so far
	// ended is bytes of messages that gRPC was given for calls that ended, since it last had
	// written the ends of all of them: no peer is slow for them.
	ended atomic.Int64
	going atomic.Int64 // calls that began and have not ended
	moved atomic.Int64 // bytes in both directions, whatever they are
	// writing is when the write that is under way began, or, below zero, when the last
	// ended: nanoseconds since begun.
	writing atomic.Int64
	begun   time.Time
	gone    chan struct{}        // closed when it is out
	pace    atomic.Pointer[pace] // of its peer
	// What the Room has weighed of keeps and answers, for a look without its lock.
	seen, free atomic.Int64
	over       atomic.Bool // it was more than is free
	unsettled  atomic.Bool // nobody calls, but ends are not written

	// The following are guarded by room.mu.
	peer        string
	share       string // of several peers; "" for none
	class       int
	served      bool          // it has something here, and may be slow to read it
	read, taken int           // bytes so far
	excess      int           // of them, what is not free of keeps and answers
	late        int           // answers that have waited for long
	waited      int64         // sent, once what waited at the last look is written
	before      int64         // sent at the last look
	look        *time.Timer   // for answers that wait; nil where none do
	mark        int           // once so many are taken, all that was there when it was set is
	at          *list.Element // in room.held; nil where nothing is under way
	calls       int           // that are open
	lately      int64         // of moved: what was before counts for half at each look
	aged        int64         // moved at the last look
	out         bool          // it gave way or is closed
}

// Enter counts what comes over conn, which is plaintext HTTP/2. The server that reads
// it needs the Room's Handler. gaveWay may be nil.
func (r *Room) Enter(conn net.Conn, peer string, gaveWay func(peer string, err error)) *Conn {
	c := &Conn{Conn: conn, room: r, peer: peer, gaveWay: gaveWay, begun: time.Now(), gone: make(chan struct{})}
	c.streams.open = map[uint32]opened{}
	c.frames = newFrames(&c.settled, &c.streams)
	c.free.Store(freeConn)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[c] = struct{}{}
	r.join(c)
	return c
}

// Belongs counts the connection as another peer's, who is known by now and served. Where it
// is one of several that anybody can be who has what they share, such as a role of AWS, share
// names that: all of them together have a bound besides.
func (c *Conn) Belongs(peer, share string) {
	c.become(peer, share, true)
}

// Known counts the connection among those of peers that are known, and, where they share one,
// of that share, as Belongs does. Its peer is who it was.
func (c *Conn) Known(share string) {
	c.become("", share, false)
}

// Served is Known for a peer of no share that is given something: it may be slow to read it.
func (c *Conn) Served() {
	c.become("", "", true)
}

// become counts the connection as one of a known peer, the same for "", which is served
// where it was or served says so.
func (c *Conn) become(peer, share string, served bool) {
	c.room.mu.Lock()
	out, err := c.room.become(c, cmp.Or(peer, c.peer), cmp.Or(share, c.share), served || c.served)
	c.room.mu.Unlock()
	end(out, err)
}

// become returns the connections that give way for it, and why. The caller holds mu.
func (r *Room) become(c *Conn, peer, share string, served bool) (out []*Conn, err error) {
	if c.out || c.class == known && c.peer == peer && c.share == share && c.served == served {
		return nil, nil
	}
	under := c.read - c.taken
	r.count(c, -under)
	if c.at != nil {
		r.held[c.class].Remove(c.at)
		c.mark, c.at = c.read, r.held[known].PushBack(c)
	}
	r.quit(c)
	c.peer, c.share, c.class, c.served = peer, share, known, served
	r.join(c)
	r.count(c, under)
	out, err = r.weigh(c) // answers to who is served are not counted at once
	give, why := r.tooMuch(c)
	return append(out, give...), cmp.Or(err, why)
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.streams.handled() // all before: whoever reads asks for more
	c.pass()
	c.wait()
	if c.little {
		b = b[:min(len(b), littleAtATime)]
	}
	n, err := c.Conn.Read(b)
	c.moved.Add(int64(n))
	if err != nil && endOfTheOther(err) && !c.ending.Load() {
		c.left.Store(true)
	}
	came := c.frames.take(b[:n])
	if c.unmeant() {
		c.close(ErrUnmeant)
		return 0, ErrUnmeant
	}
	if n > 0 {
		c.slow(n) // before it counts: what waits here must not be what has been there longest
	}
	if came != 0 {
		c.add(came)
	}
	if k := c.frames.control; k != 0 {
		c.control.Add(int64(k))
		c.frames.keeps += k
	}
	c.keep(c.frames.keeps)
	if c.streams.resets {
		c.lookAtReset()
	}
	if since := c.writing.Load(); since > 0 && time.Since(c.begun)-time.Duration(since) > c.room.blocked && c.streams.many() > mostBlocked {
		c.close(fmt.Errorf("%w, and goes on: %d calls, and nothing was written for %s", ErrUnread, c.streams.many(), c.room.blocked))
	}
	if c.frames.err != nil {
		return 0, c.frames.err // gRPC closes the connection
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	through := len(b) < writeBuffer // all that came was answered before
	if through {
		c.keep(-int(c.control.Swap(0)))
		c.passed()
	}
	now := time.Now()
	c.writing.Store(max(1, int64(now.Sub(c.begun))))
	_ = c.SetWriteDeadline(now.Add(c.room.patience)) // where it fails, so does Write
	n, err := c.Conn.Write(b)
	c.moved.Add(int64(n))
	c.writing.Store(-int64(time.Since(c.begun)))
	ends, unread := 0, 0
	messages := c.written.take(b[:n], func(id uint32) {
		o := c.streams.end(id)
		ends += o.headers
		if o.settled == c.settled.Load() {
			unread += o.unread
		}
	})
	if messages != 0 {
		c.sent.Add(int64(messages))
		c.answer(-messages)
	}
	if unread != 0 {
		c.add(-unread)
	}
	c.keep(-ends)
	if ends != 0 {
		c.settle()
	}
	if through && c.ended.Load() != 0 {
		c.allEnded()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // gRPC would read on
		c.close(fmt.Errorf("%w: not all was written within %s", ErrUnread, c.room.patience))
	}
	return n, err
}

// close has the connection give way.
func (c *Conn) close(err error) {
	c.room.mu.Lock()
	gives := c.room.leaves(c)
	c.room.mu.Unlock()
	end(gives, err)
}

// allEnded gives back what was counted for calls that ended, where each of their streams has:
// gRPC's writer passes a stream that waits for its window.
func (c *Conn) allEnded() {
	if int64(c.streams.many()) <= c.going.Load() && c.ended.Swap(0) >= step {
		c.weighNow()
	}
}

// passed gives back what waited for gRPC's writer, which has passed all that it had.
func (c *Conn) passed() {
	if !c.streams.waits.Load() {
		return
	}
	o := c.streams.passed()
	if o.unread != 0 {
		c.add(-o.unread)
	}
	c.keep(-o.headers)
	c.settle()
}

// lookAtReset sees to it that what was reset is given back, too, where gRPC's writer has
// nothing to write after it.
func (c *Conn) lookAtReset() {
	s := &c.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	if s.look == nil {
		s.look = time.AfterFunc(idle, c.lookWhetherIdle)
	}
}

// lookWhetherIdle finds gRPC's writer without anything to do.
func (c *Conn) lookWhetherIdle() {
	s, wrote := &c.streams, c.writing.Load()
	s.mu.Lock()
	quiet := min(time.Since(s.last), time.Since(c.begun)+time.Duration(wrote))
	switch {
	case s.over.streams+s.fresh.streams == 0, c.ending.Load():
		s.look = nil
		s.mu.Unlock()
	case wrote > 0 || quiet < idle || s.fresh.streams != 0:
		s.look.Reset(idle)
		s.mu.Unlock()
	default:
		s.look = nil
		s.mu.Unlock()
		c.passed()
	}
}

// settle gives back everything, where the last call has ended and now the last stream; also
// that of calls whose time was over when they came, which gRPC ends before they begin.
func (c *Conn) settle() {
	if c.unsettled.Load() || c.streams.none() {
		c.room.mu.Lock()
		c.room.settle(c)
		c.room.mu.Unlock()
	}
}

// keep counts what gRPC keeps beside messages that came, or, below zero, no longer does.
func (c *Conn) keep(n int) {
	if n != 0 {
		c.weigh(c.keeps.Add(int64(n)) + max(0, c.answers.Load()))
	}
}

// answer counts bytes of messages that gRPC was given, or, below zero, has written.
func (c *Conn) answer(n int) {
	c.weigh(c.keeps.Load() + max(0, c.answers.Add(int64(n))))
}

// weigh has the Room weigh what is kept now, where that may make a difference.
func (c *Conn) weigh(now int64) {
	more, over := now > c.free.Load(), c.over.Load()
	if more == over && (!over || max(now-c.seen.Load(), c.seen.Load()-now) < step) {
		return
	}
	c.weighNow()
}

func (c *Conn) weighNow() {
	r := c.room
	r.mu.Lock()
	out, err := r.weigh(c)
	r.mu.Unlock()
	end(out, err)
}

// weigh counts what is not free of what a connection keeps. The caller holds mu.
func (r *Room) weigh(c *Conn) (out []*Conn, err error) {
	for !c.out {
		keeps, answers, free := c.keeps.Load(), max(0, c.answers.Load()), c.free.Load()
		now := keeps + answers
		if c.served {
			now = keeps + min(answers, int64(c.late)+c.ended.Load())
		}
		c.seen.Store(keeps + answers)
		c.over.Store(keeps+answers > free)
		more := int(max(0, now-free)) - c.excess
		c.excess += more
		if more > 0 {
			give, why := r.add(c, more)
			out, err = append(out, give...), cmp.Or(why, err)
		} else {
			r.take(c, -more)
		}
		if answers >= freeConn && c.look == nil && !c.out {
			c.before = c.sent.Load()
			c.waited = c.before + answers
			c.look = time.AfterFunc(r.patience, c.lookAgain)
		}
		if c.keeps.Load()+max(0, c.answers.Load()) == keeps+answers {
			break
		}
	}
	return out, err
}

// lookAgain finds which answers have waited since the last look.
func (c *Conn) lookAgain() {
	r := c.room
	r.mu.Lock()
	answers := c.answers.Load()
	sent := c.sent.Load()
	c.late = int(max(0, c.waited-sent))
	if answers < freeConn || float64(sent-c.before) >= slow*r.patience.Seconds() { // it reads
		c.late = 0
	}
	c.waited, c.before = sent+answers, sent
	out, err := r.weigh(c)
	switch {
	case c.out:
	case answers < freeConn:
		c.look = nil
	default:
		c.look.Reset(r.patience)
	}
	r.mu.Unlock()
	end(out, err)
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
	c.closed.Store(true)
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
		c.mark, c.at = c.read, r.held[c.class].PushBack(c)
	}
	return r.tooMuch(c)
}

// count adds to the sums. The caller holds mu.
func (r *Room) count(c *Conn, n int) {
	r.all[c.class] += n
	r.peers.add(c.peer, n)
	if c.share != "" {
		r.share.add(c.share, n)
	}
}

// tally is the bytes of each who holds any.
type tally map[string]int

func (t tally) add(who string, n int) {
	if t[who] += n; t[who] == 0 {
		delete(t, who)
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
		r.held[c.class].Remove(c.at)
		c.at = nil
	case c.taken >= c.mark:
		c.mark = c.read
		r.held[c.class].MoveToBack(c.at)
	}
}

// leave counts a connection out. The caller holds mu.
func (r *Room) leave(c *Conn) {
	r.take(c, c.read-c.taken)
	if !c.out {
		close(c.gone)
		r.quit(c)
	}
	c.out = true
	delete(r.open, c)
	if c.look != nil {
		c.look.Stop()
	}
	c.streams.mu.Lock()
	defer c.streams.mu.Unlock()
	if c.streams.look != nil {
		c.streams.look.Stop()
	}
}

// leaves is leave for who is to close it. The caller holds mu.
func (r *Room) leaves(c *Conn) []*Conn {
	if c.out {
		return nil
	}
	r.leave(c)
	return []*Conn{c}
}

// settle gives back everything where no call is open: nobody will take what was sent to
// calls that are over. The caller holds mu.
func (r *Room) settle(c *Conn) {
	if c.calls != 0 {
		c.unsettled.Store(false)
		return
	}
	c.unsettled.Store(true) // before the look: who ends a stream looks at it after
	if !c.streams.none() {
		return
	}
	c.unsettled.Store(false)
	c.settled.Add(1)
	c.answers.Store(0)
	c.late = 0
	r.take(c, c.read-c.taken-c.excess)
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
			gives, err = r.oldest(func(o *Conn) bool { return o.peer == c.peer }), fmt.Errorf("%w: %d bytes of %s", ErrFull, r.peers[c.peer], c.peer)
		case c.share != "" && r.share[c.share] > r.most.Share:
			gives, err = r.oldest(func(o *Conn) bool { return o.share == c.share }), fmt.Errorf("%w: %d bytes of all of %s", ErrFull, r.share[c.share], c.share)
		case r.all[c.class] > r.most.of(c.class):
			gives, err = r.held[c.class].Front().Value.(*Conn), fmt.Errorf("%w: %d bytes of all", ErrFull, r.all[c.class]) //nolint:forcetypeassert // what it holds
		}
		if gives == nil {
			return out, err
		}
		r.leave(gives)
		out = append(out, gives)
	}
}

// of is what all of a class may have.
func (m Most) of(class int) int {
	if class == unknown {
		return m.Others
	}
	return m.All
}

// oldest is the connection of those that are meant whose bytes have been there longest, of
// those first that are not known. The caller holds mu.
func (r *Room) oldest(of func(*Conn) bool) *Conn {
	for class := range r.held {
		for e := r.held[class].Front(); e != nil; e = e.Next() {
			if c := e.Value.(*Conn); of(c) { //nolint:forcetypeassert // what it holds
				return c
			}
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
