package limits

import (
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"signet.example/internal/paced"
	"signet.example/internal/unixsock"
)

// Door is what whoever comes to any of an agent's sockets passes first: there is one for
// all of them. Whoever comes too often is closed after the kernel's word of whose process
// it is, which is one system call: no descriptor of its process, no look into /proc, no
// goroutine and no poller. A queue before a socket has no order but that of who came, so
// that what is refused must not keep the others in it waiting.
type Door struct {
	knows     func(uid uint32) bool
	started   func(pid int32) bool
	strangers *pace
	known     *paced.Each[uint32]
	process   *paced.Each[int32] // of users that are known

	mu    sync.Mutex
	rests time.Time // until when refusing does; guarded by mu
}

// How often processes of one user that is known may come, and how often at once, beyond
// what each of them may in any case, as one of a user that is not known does: all Envoys of a
// host, with all of their workers. Whoever comes seldom is kept out by no other process of
// its user. Those that the agent started come as they like.
const knownPerSecond, knownBurst = 100, 1000

const (
	// refusals is how many are closed before others of the process go on, for rest times as
	// long as that took, at all of the sockets together: a third of one processor is what
	// refusing takes, however many come. What comes meanwhile waits in the kernel.
	refusals, rest = 64, 2
)

// NewDoor takes who is known, and which processes the agent started, which it asks for each
// connection that comes too often: both ask nothing of the kernel.
func NewDoor(knows func(uid uint32) bool, started func(pid int32) bool) *Door {
	return &Door{knows: knows, started: started, strangers: newPace(), known: paced.New[uint32](knownPerSecond, knownBurst), process: paced.New[int32](processPerSecond, processBurst)}
}

// lets reports whether somebody does not come too often.
func (d *Door) lets(c unixsock.Peer) bool {
	if d.knows(c.UID) {
		return d.process.Allow(c.PID) || d.known.Allow(c.UID) || d.started(c.PID)
	}
	return d.strangers.allows(c) || d.started(c.PID)
}

// tooOften is why.
func (d *Door) tooOften(c unixsock.Peer) error {
	who := ""
	if !d.knows(c.UID) {
		who = ", of whom nothing is known here,"
	}
	return fmt.Errorf("%w: process %d of user %d%s comes too often", ErrTooMany, c.PID, c.UID, who)
}

// breath is for how long nothing more is refused after what took so long.
func (d *Door) breath(took time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.rests.Before(now) {
		d.rests = now
	}
	d.rests = d.rests.Add(rest * took)
	return d.rests.Sub(now)
}

// At is a socket behind the door, whose connections are *net.UnixConn. Several refusals at
// once are told of as their number and the last. It is closed with l, which it takes over.
func (d *Door) At(l *net.UnixListener, refused func(n int, last unixsock.Peer, err error)) (net.Listener, error) {
	q, err := unixsock.NewQueue(l)
	if err != nil {
		return nil, err
	}
	return &behind{l.Addr(), q, d, refused}, nil
}

// behind is a socket behind the door.
type behind struct {
	addr    net.Addr
	queue   *unixsock.Queue
	door    *Door
	refused func(n int, last unixsock.Peer, err error)
}

// Addr implements net.Listener.
func (b *behind) Addr() net.Addr { return b.addr }

// Close implements net.Listener.
func (b *behind) Close() error { return b.queue.Close() }

// Accept implements net.Listener.
func (b *behind) Accept() (net.Conn, error) {
	for {
		c, refused, err := b.queue.Next(b.door.lets, refusals)
		if refused.N > 0 {
			b.refused(refused.N, refused.Last, b.door.tooOften(refused.Last))
		}
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			return c, nil
		}
		time.Sleep(b.door.breath(refused.Took))
	}
}

// pace is how often those may come who are not known.
type pace struct {
	process *paced.Each[int32]
	user    *paced.Each[uint32]
	all     *rate.Limiter
}

func newPace() *pace {
	return &pace{
		paced.New[int32](processPerSecond, processBurst), paced.New[uint32](userPerSecond, userBurst),
		rate.NewLimiter(strangersPerSecond, strangersBurst),
	}
}

// allows counts one that comes. One that comes too often takes nothing from the others.
func (p *pace) allows(c unixsock.Peer) bool {
	return p.process.Allow(c.PID) && p.user.Allow(c.UID) && p.all.Allow()
}
