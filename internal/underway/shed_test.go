package underway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"signet.example/internal/overload"
	"signet.example/internal/underway"
	"signet.example/test/parts"
)

// boundless is a Room that miscounts everything.
var boundless = underway.Most{Conn: 1 << 40, Peer: 1 << 40, All: 1 << 40, Others: 1 << 40}

// guarded runs a Guard that lets so many bytes more be in use than are now. What it logs is
// shown if the test fails.
func (r *rig) guarded(room int, c overload.Connections) *lockedBuffer {
	r.t.Helper()
	before := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(int64(heap()+room) / 3 * 4)
	log := &lockedBuffer{}
	ctx, stop := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = overload.New(0, c, slog.New(slog.NewTextHandler(log, nil))).Run(ctx) })
	r.t.Cleanup(func() {
		stop()
		wg.Wait()
		debug.SetMemoryLimit(before)
		if r.t.Failed() {
			r.t.Log(log)
		}
	})
	return log
}

// stream opens one as a peer that is known from then on.
func (r *rig) stream(on *grpc.ClientConn) grpc.ClientStream {
	r.t.Helper()
	stream, err := on.NewStream(r.t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Takes/Fill")
	if err == nil {
		err = stream.SendMsg(&healthpb.HealthCheckRequest{Service: "10"})
	}
	if err == nil {
		err = stream.RecvMsg(new(healthpb.HealthCheckRequest))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return stream
}

// The bounds are off: what the process has is looked at, whoever has it.
func TestWhatIsNotCountedCostsConnectionsAndNotTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		peer  string
		again bool // whose connection is closed comes again
	}{"strangers": {"bad", false}, "one who is known": {"knownbad", true}} {
		t.Run(name, func(t *testing.T) {
			const room = 48 << 20
			r := newRig(t, boundless)
			honest := r.client("honest")
			stream := r.stream(honest)
			calls := healthpb.NewHealthClient(honest)
			r.guarded(room, r.room)
			var over atomic.Bool
			var wg sync.WaitGroup
			defer wg.Wait()
			defer over.Store(true)
			begin := heap()
			for range 120 {
				wg.Go(func() {
					for again := true; again && !over.Load(); again = c.again {
						conn := r.raw(c.peer)
						_, _ = parts.Unfinished(conn, check, 32, 65531, 16384) // it may be closed meanwhile
						time.Sleep(10 * time.Millisecond)
						if c.again {
							_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // fails where it is closed
							_, _ = io.Copy(io.Discard, conn)
						}
					}
				})
			}
			most := 0
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if _, err := calls.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Fatalf("somebody else's call: %v", err)
				}
				now := heap() - begin
				most = max(most, now)
				if n := r.gaveWay(c.peer); n > 0 && now < room && (!c.again || n > 150) {
					t.Logf("120 connections of 2 MB: %d MiB in use at most, %d of theirs gave way", most>>20, n)
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%d MiB are in use, and %d of theirs gave way", now>>20, r.gaveWay(c.peer))
				}
			}
			if r.gaveWay("honest") != 0 {
				t.Error("another's connection gave way")
			}
			if most > 4*room {
				t.Errorf("%d MiB were in use", most>>20)
			}
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
			if err := stream.RecvMsg(new(healthpb.HealthCheckRequest)); !errors.Is(err, io.EOF) {
				t.Errorf("its stream ended with %v", err)
			}
		})
	}
}

func TestThoseGiveWayFirstOfWhomNothingIsKnownAndWhoMoveMost(t *testing.T) {
	room := underway.New(boundless)
	var gone []string
	enter := func(peer string, bytes int, known bool) {
		here, there := net.Pipe()
		t.Cleanup(func() { _, _ = here.Close(), there.Close() }) // it may be closed
		c := room.Enter(here, peer, func(who string, _ error) { gone = append(gone, who) })
		if known {
			c.Known("")
		}
		go func() { _, _ = there.Write(make([]byte, bytes)) }() // it ends with the pipe
		for n := 0; n < bytes; {
			k, err := c.Read(make([]byte, 4096))
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	enter("agent that was busy", 64<<10, true)
	for range 3 {
		room.Age()
	}
	enter("quiet agent", 10, true)
	enter("busy agent", 32<<10, true)
	enter("quiet stranger", 1, false)
	for range 4 { // each less than the loud one, together more
		enter("many", 3000, false)
	}
	enter("loud stranger", 8000, false)
	why := fmt.Errorf("%w: for the test", overload.ErrShort)
	want := []string{"many", "many", "many", "many", "loud stranger", "quiet stranger", "busy agent", "agent that was busy", "quiet agent"}
	for _, s := range room.Suspects() {
		s.GiveWay(why)
	}
	if !slices.Equal(gone, want) {
		t.Errorf("%q gave way, not %q", gone, want)
	}
	if left := room.Suspects(); len(left) != 0 || room.Bytes() != 0 {
		t.Errorf("%d are left, with %d bytes", len(left), room.Bytes())
	}
}

// fixed are 40 connections that have nothing, and come again.
type fixed struct{ closed, pass atomic.Int64 }

func (*fixed) Age() {}

func (f *fixed) Pause() func() {
	f.pass.Store(0)
	return func() {}
}

func (f *fixed) Suspects() []overload.Suspect {
	if f.pass.Load() == 40 {
		return nil
	}
	return []overload.Suspect{{Peer: "somebody", GiveWay: func(error) (int, func() bool) {
		f.closed.Add(1)
		f.pass.Add(1)
		return 1, func() bool { return true }
	}}}
}

// Where it is the store that grew, connections give way once, and not again and again.
func TestWhatIsNotOfConnectionsClosesThemOnceAndIsSaid(t *testing.T) {
	held := make([][]byte, 32)
	for i := range held {
		held[i] = bytes.Repeat([]byte{1}, 1<<20)
	}
	all := &fixed{}
	log := (&rig{t: t}).guarded(-8<<20, all)
	for end := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "not because of connections"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is said:\n%s", log)
		}
	}
	time.Sleep(500 * time.Millisecond)
	if n := all.closed.Load(); n != 40 {
		t.Errorf("%d gave way, not each of 40 once:\n%s", n, log)
	}
	runtime.KeepAlive(held)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
