package limits

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"signet.example/attestation"
	"signet.example/internal/openfiles"
	"signet.example/internal/paced"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
	"signet.example/proxy"
)

func nobody(uint32) bool { return false }

// often is a pace that nobody goes beyond.
func often() *pace {
	return &pace{paced.New[int32](1, 1<<20), paced.New[uint32](1, 1<<20), rate.NewLimiter(1, 1<<20)}
}

// Attesting a process costs the agent more than the process: it reads /proc.
func TestWhoeverIsNotKnownAndComesTooOftenIsNotAttested(t *testing.T) {
	const app, flooder, other = 1001, 1002, 1003
	tally := tallyOf(mostConns(4096), newPace(), func(uid uint32) bool { return uid == app })
	comes := func(pid, uid int32, proxy bool) bool {
		leave, err := tally.enter(unixsock.Peer{PID: pid, UID: uint32(uid)}, func() (string, bool) { return "web", proxy }) //nolint:gosec // it is not below zero
		if err != nil && !errors.Is(err, ErrTooMany) {
			t.Error(err)
		}
		if err == nil {
			leave()
		}
		return err == nil
	}
	in := 0
	for range 10 * processBurst {
		if comes(1, flooder, false) {
			in++
		}
		if !comes(2, app, false) {
			t.Fatal("a user that is known was refused")
		}
	}
	if in < processBurst || in > 2*processBurst {
		t.Errorf("%d of a stranger's came in", in)
	}
	if !comes(1, flooder, true) || !comes(3, flooder, false) {
		t.Error("a proxy of the agent's with that user, or another process of it, was refused")
	}
	in = 0
	for pid := range int32(10 * userBurst) {
		if comes(1000+pid, flooder, false) {
			in++
		}
	}
	if in > 2*userBurst || !comes(4, other, false) {
		t.Errorf("of %d processes of a stranger, %d came in", 10*userBurst, in)
	}
	in = 0
	for n := range int32(10 * strangersBurst) {
		if comes(70000+n, 70000+n, false) {
			in++
		}
	}
	if in > 2*strangersBurst || !comes(2, app, false) {
		t.Errorf("of %d strangers, %d came in", 10*strangersBurst, in)
	}
}

// Whoever is known is looked at with each call, too.
func TestAProcessOfAKnownUserCannotCallAsOftenAsItLikes(t *testing.T) {
	tally := NewCalls(func(uint32) bool { return true })
	calls := func(pid int32) bool {
		leave, err := tally.enter(unixsock.Peer{PID: pid, UID: 1001}, func() (string, bool) { return "", false })
		if err != nil && !errors.Is(err, ErrTooMany) {
			t.Error(err)
		}
		if err == nil {
			leave()
		}
		return err == nil
	}
	in := 0
	for range 3 * callsBurst {
		if calls(1) {
			in++
		}
	}
	if in < callsBurst || in >= 3*callsBurst {
		t.Errorf("%d of its calls came in at once", in)
	}
	if !calls(2) {
		t.Error("another process of the user was refused")
	}
}

// A connection and its pidfd are two files, and each socket has a tally of its own.
func TestLocalPeersCannotTakeAllFiles(t *testing.T) {
	if files, _ := openfiles.Limit(); New(nobody).most != mostConns(files) {
		t.Errorf("the tally of one of %d Sockets is %+v", Sockets, New(nobody).most)
	}
	for _, files := range []uint64{64, 256, 1024, 4096, 1 << 20} {
		m := mostConns(files)
		if taken := 2 * Sockets * m.all; taken > int(files/2) { //nolint:gosec // a few thousand
			t.Errorf("of %d files, local peers may take %d", files, taken)
		}
		if m.uid > m.all/4 || m.pid > m.uid || m.pid < 1 {
			t.Errorf("of %d files: %+v: one user starves the others", files, m)
		}
	}
	if m := mostConns(1 << 20); m != (most{maxConnsPerPID, maxConnsPerUID, maxConns, maxConns / 4, maxConns / 4}) {
		t.Errorf("with many files: %+v", m)
	}
}

// One person may have many users: a range of /etc/subuid, a container.
func TestHoweverManyUsersThereAreTheAgentsOwnProxiesHaveRoom(t *testing.T) {
	tally := tallyOf(mostConns(4096), often(), nobody)
	stranger := func() (string, bool) { return "", false }
	in := 0
	for n := range 200 * tally.most.pid {
		if _, err := tally.enter(unixsock.Peer{PID: int32(1000 + n%200), UID: uint32(70000 + n%200)}, stranger); err == nil {
			in++
		}
	}
	if want := tally.most.anybody(); in != want {
		t.Errorf("%d connections of strangers came in, want %d", in, want)
	}
	proxy := func(name string) func() (string, bool) { return func() (string, bool) { return name, true } }
	var leave func()
	for range tally.most.ofProxy() {
		var err error
		if leave, err = tally.enter(unixsock.Peer{PID: 1, UID: 70000}, proxy("web")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tally.enter(unixsock.Peer{PID: 1, UID: 70000}, proxy("web")); !errors.Is(err, ErrTooMany) {
		t.Errorf("one proxy has all that is kept: %v", err)
	}
	if _, err := tally.enter(unixsock.Peer{PID: 2, UID: 70000}, proxy("orders")); err != nil {
		t.Errorf("another proxy: %v", err)
	}
	leave()
	if _, err := tally.enter(unixsock.Peer{PID: 1, UID: 70000}, proxy("web")); err != nil {
		t.Errorf("after one left: %v", err)
	}
	if n := tally.Count(); n > tally.most.all {
		t.Errorf("%d are open", n)
	}
}

func TestHoweverManyUsersThereAreThoseThatAreKnownHaveRoom(t *testing.T) {
	const envoy, app = 1000, 1001
	known := &Guests{given: map[uint32]bool{app: true}, Named: func(uid uint32) bool { return uid == envoy }}
	tally := tallyOf(mostConns(4096), often(), known.Knows)
	stranger := func() (string, bool) { return "", false }
	for n := range 200 * tally.most.pid {
		_, _ = tally.enter(unixsock.Peer{PID: int32(1000 + n%200), UID: uint32(70000 + n%200)}, stranger) // as many as there may be
	}
	if in, want := tally.Count(), tally.most.anybody(); in != want || want < tally.most.all/2 {
		t.Fatalf("%d connections of strangers came in, want %d", in, want)
	}
	var leave func()
	for n := range tally.most.ofKnown() {
		var err error
		if leave, err = tally.enter(unixsock.Peer{PID: int32(n), UID: app}, stranger); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tally.enter(unixsock.Peer{PID: 999, UID: app}, stranger); !errors.Is(err, ErrTooMany) {
		t.Errorf("one user has all that is kept: %v", err)
	}
	for range tally.most.pid {
		if _, err := tally.enter(unixsock.Peer{PID: 2, UID: envoy}, stranger); err != nil && tally.most.pid <= tally.most.ofKnown() {
			t.Errorf("another user: %v", err)
		}
	}
	if _, err := tally.enter(unixsock.Peer{PID: 2, UID: envoy}, stranger); !errors.Is(err, ErrTooMany) {
		t.Errorf("one process has more than any may have: %v", err)
	}
	leave()
	if _, err := tally.enter(unixsock.Peer{PID: 999, UID: app}, stranger); err != nil {
		t.Errorf("after one left: %v", err)
	}
}

func TestAConnectionOfWhoIsGivenNothingEnds(t *testing.T) {
	a := &attestation.Attestor{}
	tally, g := New(nobody), &Guests{Within: 100 * time.Millisecond}
	creds := counted{a.Credentials(), a, tally, g, underway.New(mostLocal), func(unixsock.Peer, error) {}}
	dir, err := os.MkdirTemp("", "gu") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // in /tmp
	l, err := unixsock.Listen(t.Context(), filepath.Join(dir, "s"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, given := range []bool{false, true} {
		near, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		far, info, err := creds.ServerHandshake(far)
		if err != nil {
			t.Fatal(err)
		}
		if given {
			g.Stay(info.(attestation.PeerInfo).Peer)
		}
		if err := near.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = near.Read(make([]byte, 1))
		if closed := errors.Is(err, io.EOF); closed == given {
			t.Errorf("given something: %t; its connection after a while: %v", given, err)
		}
		if g.Knows(uint32(os.Geteuid())) != given { //nolint:gosec // a uid has 32 bits
			t.Errorf("given something: %t, and its user is known: %t", given, !given)
		}
		_ = far.Close() // it may be closed
		_ = near.Close()
	}
	left := 0
	g.guests.Range(func(any, any) bool { left++; return true })
	if left != 0 || tally.Count() != 0 {
		t.Errorf("%d timers and %d connections are left", left, tally.Count())
	}
}

// Envoy does not wait to be told how many calls a connection takes, and has a
// connection for each worker: a burst of callers is not refused where it asks.
func TestAProxysBurstOfQuestionsFitsWhereItAsks(t *testing.T) {
	if maxStreamsPerConn < proxy.WayoutStreams {
		t.Errorf("a connection takes %d calls, and a proxy makes %d", maxStreamsPerConn, proxy.WayoutStreams)
	}
	workers := (mostStreams.pid + mostStreams.ofProxy()) / proxy.WayoutStreams
	if all := mostConns(1 << 20); workers < 32 || all.pid < 32 {
		t.Errorf("a proxy of ours with 32 workers may have %d connections, and the calls of %d", all.pid, workers)
	}
}

func TestTooManyConnectionsOfOneProcessAreRefusedAndCountedOut(t *testing.T) {
	tally := New(nobody)
	stranger := func() (string, bool) { return "", false }
	var leaves []func()
	for range tally.most.pid {
		leave, err := tally.enter(unixsock.Peer{PID: 7, UID: 1}, stranger)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	if _, err := tally.enter(unixsock.Peer{PID: 7, UID: 1}, stranger); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := tally.enter(unixsock.Peer{PID: 8, UID: 1}, stranger); err != nil {
		t.Errorf("another process: %v", err)
	}
	leaves[0]()
	leaves[0]() // once only
	if _, err := tally.enter(unixsock.Peer{PID: 7, UID: 1}, stranger); err != nil {
		t.Errorf("after one left: %v", err)
	}
	if _, err := tally.enter(unixsock.Peer{PID: 7, UID: 1}, stranger); !errors.Is(err, ErrTooMany) {
		t.Errorf("a connection was counted out twice: %v", err)
	}
}

func TestAUserMoreThanAreKnownCostsOneOfThemItsRoom(t *testing.T) {
	var g Guests
	known := func() (n int) {
		for uid := range uint32(maxKnown + 1) {
			if g.Knows(uid) {
				n++
			}
		}
		return n
	}
	for uid := range uint32(maxKnown) {
		g.Know(uid)
	}
	if g.Know(7); known() != maxKnown {
		t.Errorf("after one that is known already: %d are known", known())
	}
	if g.Know(maxKnown); known() != maxKnown || !g.Knows(maxKnown) {
		t.Errorf("after one more: %d are known, the new one: %v", known(), g.Knows(maxKnown))
	}
}
