package underway_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Frames that mean nothing, of every kind: nothing is kept of them, and who has to read them
// does nothing else.
func TestWhoSendsWhatMeansNothingKeepsNobodyWaiting(t *testing.T) {
	var priority, unknown, nowhere, windows bytes.Buffer
	for _, f := range []struct {
		to    *bytes.Buffer
		write func(*http2.Framer) error
	}{
		{&priority, func(f *http2.Framer) error { return f.WritePriority(1, http2.PriorityParam{StreamDep: 3, Weight: 7}) }},
		{&unknown, func(f *http2.Framer) error { return f.WriteRawFrame(0xbe, 0, 0, []byte("nothing")) }},
		{&nowhere, func(f *http2.Framer) error { return f.WriteData(1<<20+1, false, []byte("x")) }},
		{&windows, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }},
	} {
		f.to.WriteString(http2.ClientPreface)
		to := http2.NewFramer(f.to, nil)
		if err := to.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		for range 4000 {
			if err := f.write(to); err != nil {
				t.Fatal(err)
			}
		}
	}
	floods(t, &priority, &unknown, &nowhere, &windows)
}

// Calls of a method that there is not: reading them is little of what they cost.
func TestWhoCallsWhatThereIsNotKeepsNobodyWaiting(t *testing.T) {
	var calls bytes.Buffer
	calls.WriteString(http2.ClientPreface)
	to := http2.NewFramer(&calls, nil)
	if err := to.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for id := uint32(1); id < 1<<18; id += 2 {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/x/y"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := to.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
	}
	floods(t, &calls)
}

// floods has 128 connections send what they are given, again and again, beside a caller.
func floods(t *testing.T, what ...*bytes.Buffer) {
	t.Helper()
	for _, peer := range []string{"bad", "knownbad"} {
		t.Run(peer, func(t *testing.T) {
			r := newRig(t, boundless)
			calls := healthpb.NewHealthClient(r.client("honest"))
			var sent atomic.Int64
			var wg sync.WaitGroup
			defer wg.Wait()
			conns := make([]net.Conn, 0, 128)
			for i := range 128 {
				conn, frames := r.raw(peer), what[i%len(what)].Bytes()
				conns = append(conns, conn)
				again := frames[len(http2.ClientPreface)+9:]
				wg.Go(func() { _, _ = io.Copy(io.Discard, conn) }) // until it is closed
				wg.Go(func() {
					for b := frames; ; b = again {
						n, err := conn.Write(b)
						sent.Add(int64(n))
						if err != nil {
							return
						}
					}
				})
			}
			const lasts = 2 * time.Second
			begun, slowest, n := time.Now(), time.Duration(0), 0
			for time.Since(begun) < lasts {
				at := time.Now()
				if _, err := calls.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Fatal(err)
				}
				slowest = max(slowest, time.Since(at))
				n++
			}
			for _, c := range conns {
				_ = c.Close() // it may be closed
			}
			most := 128*(4<<20) + int64(lasts.Seconds()+1)*int64(runtime.GOMAXPROCS(0))*(64<<20) // what lies in sockets, and what is read
			t.Logf("%d MiB were sent; %d calls of another, the slowest took %s", sent.Load()>>20, n, slowest)
			if slowest > 3*time.Second || n < 10 || sent.Load() > most {
				t.Errorf("%d MiB of %d", sent.Load()>>20, most>>20)
			}
		})
	}
}
