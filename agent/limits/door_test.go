package limits

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/internal/unixsock"
)

// socket is one behind a door, and what came of it.
type socket struct {
	net.Listener
	in, told, refused atomic.Int64
}

func (s *socket) serve() {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.in.Add(1)
		_ = c.Close()
	}
}

// queue connects n times before anybody looks, and returns these.
func (s *socket) queue(t *testing.T, n int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range n {
		c, err := net.Dial("unix", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, c)
	}
	return all
}

func at(t *testing.T, d *Door) *socket {
	t.Helper()
	dir, err := os.MkdirTemp("", "do") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := unixsock.Listen(t.Context(), filepath.Join(dir, "s"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s := &socket{}
	s.Listener, err = d.At(l, func(n int, last unixsock.Peer, err error) {
		s.told.Add(1)
		s.refused.Add(int64(n))
		if last.PID != int32(os.Getpid()) || !errors.Is(err, ErrTooMany) { //nolint:gosec // a pid has 22 bits
			t.Errorf("refused: %+v, %v", last, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What comes too often of a user, at whichever sockets, is closed with two system calls: no
// descriptor of it becomes one of the poller's, it is attested by nobody, and what is told of
// it is a number. Whoever is known and stands in the queue behind it comes in.
func TestWhoComesAndGoesAtAllSocketsIsClosedUnseenAndKeepsNobodyWaiting(t *testing.T) {
	const each = 400
	var known atomic.Bool
	d := NewDoor(func(uint32) bool { return known.Load() }, func(int32) bool { return false })
	sockets := []*socket{at(t, d), at(t, d)}
	var conns []net.Conn
	for _, s := range sockets {
		conns = append(conns, s.queue(t, each)...)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for _, s := range sockets {
		wg.Go(s.serve)
	}
	for _, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("not closed: %v", err)
		}
	}
	took := time.Since(begun)
	in, refused, told := sockets[0].in.Load()+sockets[1].in.Load(), int64(0), int64(0)
	for end := time.Now().Add(5 * time.Second); in+refused < 2*each && time.Now().Before(end); time.Sleep(time.Millisecond) { // told after they were closed
		refused, told = sockets[0].refused.Load()+sockets[1].refused.Load(), sockets[0].told.Load()+sockets[1].told.Load()
	}
	if most := int64(processBurst + processPerSecond*(int(took/time.Second)+1)); in < processBurst || in > most || in+refused != 2*each {
		t.Errorf("of %d at two sockets %d came in (at most %d), and %d were refused", 2*each, in, most, refused)
	}
	if told > in+2*each/refusals+2 {
		t.Errorf("%d refusals were told of in %d parts", refused, told)
	}

	sockets[0].queue(t, each)
	known.Store(true)
	before := sockets[0].in.Load()
	sockets[0].queue(t, 1)
	for end := time.Now().Add(5 * time.Second); sockets[0].in.Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a user that is known stands behind those that are refused")
		}
	}
	for _, s := range sockets {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if _, err := sockets[0].Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after its end: %v", err)
	}
}

func TestADoorHasAPaceForWhoIsKnownAndNoneForWhatTheAgentStarted(t *testing.T) {
	const app, own = 1001, 7
	d := NewDoor(func(uid uint32) bool { return uid == app }, func(pid int32) bool { return pid == own })
	in := 0
	for n := range int32(3 * knownBurst) {
		if d.lets(unixsock.Peer{UID: app, PID: 100}) {
			in++
		}
		if n%100 == 0 && !d.lets(unixsock.Peer{UID: app, PID: 101 + n}) {
			t.Fatal("another process of a known user was kept out by it")
		}
		if !d.lets(unixsock.Peer{UID: app, PID: own}) || !d.lets(unixsock.Peer{UID: 1002, PID: own}) {
			t.Fatal("a proxy that the agent started was refused")
		}
	}
	if in > 2*knownBurst {
		t.Errorf("of %d of a known user's, %d came in", 3*knownBurst, in)
	}
}

// The time that refusing takes is a third of one processor, at however many sockets.
func TestRefusingRestsForTwiceAsLongAsItTook(t *testing.T) {
	d := NewDoor(nil, nil)
	const took = 10 * time.Millisecond
	one, two := d.breath(took), d.breath(took)
	if one != rest*took || two <= one || two > 2*one {
		t.Errorf("rests of %s, and for another socket %s", one, two)
	}
}
