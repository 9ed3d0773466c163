package underway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"signet.example/internal/underway"
)

// framed is a client that writes frames itself.
type framed struct {
	*http2.Framer

	t     *testing.T
	conn  net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

// framed connects as a peer that reads nothing, unless it is told to, and has little room
// for what it does not read.
func (r *rig) framed(peer string, settings ...http2.Setting) *framed {
	r.t.Helper()
	// Before it connects: of a window that shrinks later the kernel drops acknowledgements.
	conn := r.dial(peer, net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }), err)
	}})
	f := &framed{t: r.t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	f.AllowIllegalWrites = true
	f.enc = hpack.NewEncoder(&f.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		r.t.Fatal(err)
	}
	if err := f.WriteSettings(settings...); err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (f *framed) call(id uint32, path, authority string, last bool) error {
	f.block.Reset()
	var err error
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", authority}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		err = errors.Join(err, f.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	return errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: true, EndStream: last}))
}

// message sends the first n bytes of a message that says what it is for.
func (f *framed) message(id uint32, what string, n int, last bool) error {
	m, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: what})
	if err != nil {
		return err
	}
	m = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...) //nolint:gosec // a few KB
	for m = m[:min(n, len(m))]; len(m) > 0 && err == nil; {
		k := min(len(m), 16384)
		err = f.WriteData(id, last && k == len(m), m[:k])
		m = m[k:]
	}
	return err
}

// ends waits until the server has closed the connection.
func (f *framed) ends() {
	f.t.Helper()
	if err := f.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, f.conn); errors.Is(err, errTimeout) {
		f.t.Error("its connection stands")
	}
}

var errTimeout = error(timeoutError{})

type timeoutError struct{}

func (timeoutError) Error() string     { return "i/o timeout" }
func (timeoutError) Is(err error) bool { var n net.Error; return errors.As(err, &n) && n.Timeout() }

// gRPC queues an answer to each, 450 bytes for 9, and reads on.
func TestHeadersOfAStreamThatCannotBeginEndTheConnection(t *testing.T) {
	for name, ids := range map[string][2]uint32{"even": {1, 2}, "the same again": {5, 5}, "lower": {5, 3}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
			f := r.framed("bad")
			if err := f.call(ids[0], "/test.Takes/All", "x", false); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := http2.NewFramer(&b, nil).WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, ids[1], nil); err != nil {
				t.Fatal(err)
			}
			flood, n := bytes.Repeat(b.Bytes(), 1000), 0
			err := f.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			for ; n < 20<<10 && err == nil; n++ { // 180 MB, of which the kernel holds a few
				_, err = f.conn.Write(flood)
			}
			if err == nil || errors.Is(err, errTimeout) {
				t.Errorf("after %d thousand frames: %v", n, err)
			}
			f.ends()
			r.empty()
		})
	}
}

// What gRPC refuses before it is a call is kept until its answer is written: 16 KB for 12
// bytes, since the client's table has the rest.
func TestCallsThatDoNotBeginAreCountedUntilTheirAnswersAreWritten(t *testing.T) {
	long := strings.Repeat("\xff", 3900)
	for name, try := range map[string]func(f *framed, id uint32) error{
		"no method's name": func(f *framed, id uint32) error { return f.call(id, long, "x", true) },
		"no method":        func(f *framed, id uint32) error { return f.call(id, "/a/"+long, "x", false) },
		"no gRPC": func(f *framed, id uint32) error {
			f.block.Reset()
			var err error
			for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "x"}, {"content-type", long}} {
				err = errors.Join(err, f.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
			}
			return errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: true, EndStream: true}))
		},
		"settings": func(f *framed, _ uint32) error {
			return f.WriteRawFrame(http2.FrameSettings, 0, 0, bytes.Repeat([]byte{0, 9, 0, 0, 0, 1}, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
			f := r.framed("tiny")
			err := f.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			for id := uint32(1); id < 200_000 && err == nil; id += 2 {
				err = try(f, id)
			}
			if err == nil || errors.Is(err, errTimeout) || r.gaveWay("tiny") != 1 {
				t.Errorf("%v; %d gave way, %d bytes are counted", err, r.gaveWay("tiny"), r.room.Bytes())
			}
			r.empty()
		})
	}
	t.Run("read", func(t *testing.T) {
		r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
		f := r.framed("honest")
		go func() { _, _ = io.Copy(io.Discard, f.conn) }()
		for id := uint32(1); id < 1000; id += 2 {
			if err := f.call(id, "/test.None/Of", "x", true); err != nil {
				t.Fatal(err)
			}
		}
		r.empty()
		if r.gaveWay("honest") != 0 {
			t.Error("one who reads its answers gave way")
		}
	})
}

// A window of nothing keeps every answer in the server.
func TestAnswersThatAreNotReadAreCounted(t *testing.T) {
	for _, peer := range []string{"bad", "served"} {
		t.Run(peer, func(t *testing.T) {
			r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
			r.room.Patience(500 * time.Millisecond)
			f := r.framed(peer, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			begun := time.Now()
			go func() { _, _ = io.Copy(io.Discard, f.conn) }() // it takes what is written, and allows nothing to be
			var err error
			for id := uint32(1); id < 64 && err == nil; id += 2 {
				if err = f.call(id, "/test.Takes/Echo", peer, false); err == nil {
					err = f.message(id, strings.Repeat("x", 60000), 1<<20, false)
				}
				time.Sleep(5 * time.Millisecond) // else it is its messages that wait
			}
			for end := time.Now().Add(5 * time.Second); r.gaveWay(peer) == 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%v; %d bytes are counted", err, r.room.Bytes())
				}
			}
			// Who is given something may be slow to read it.
			if took := time.Since(begun); peer == "served" && took < 500*time.Millisecond {
				t.Errorf("after %s", took)
			}
			r.empty()
		})
	}
}

func TestAnswersThatAreReadAreCountedOutToTheLastByte(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	r.room.Patience(2 * time.Second)
	for _, peer := range []string{"honest", "served"} {
		conn := r.client(peer)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				stream, err := conn.NewStream(t.Context(), &takes.Streams[1], "/test.Takes/Echo")
				for i := 0; i < 30 && err == nil; i++ {
					m := &healthpb.HealthCheckRequest{Service: strings.Repeat("x", i*3000)}
					if err = stream.SendMsg(m); err == nil {
						err = stream.RecvMsg(m)
					}
				}
				if err != nil {
					t.Error(err)
				}
				_ = stream.CloseSend()                             // its end is looked at
				_ = stream.RecvMsg(&healthpb.HealthCheckRequest{}) // its end
			})
		}
		all.Wait()
		r.empty()
		if r.gaveWay(peer) != 0 {
			t.Errorf("%s gave way", peer)
		}
	}
}

// gRPC keeps it until the handler has returned, which may wait for something else.
func TestAMessageThatItsStreamsEndCutsOffIsCountedUntilTheCallIsOver(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	f := r.framed("bad")
	go func() { _, _ = io.Copy(io.Discard, f.conn) }() // it ends with the test
	const n = 50000
	for id := uint32(1); id < 9; id += 2 {
		err := errors.Join(f.call(id, "/test.Takes/All", "x", false), f.message(id, "stop", 1<<10, false), f.message(id, strings.Repeat("x", 60000), n, true))
		if err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(5 * time.Second); r.room.Bytes() < 4*n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are counted, and %d are held", r.room.Bytes(), 4*n)
		}
	}
	time.Sleep(20 * time.Millisecond)
	if got := r.room.Bytes(); got < 4*n {
		t.Errorf("%d bytes are counted, and %d are held", got, 4*n)
	}
	for id := uint32(1); id < 9; id += 2 {
		if err := f.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	r.empty()
}

// Of what it did not read nothing is kept any longer.
func TestAPeerThatReadsNothingIsClosed(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 64 << 20, Peer: 64 << 20, All: 64 << 20, Others: 64 << 20})
	r.room.Patience(300 * time.Millisecond)
	f := r.framed("tiny", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	err := f.WriteWindowUpdate(0, 1<<30)
	for id := uint32(1); id < 128 && err == nil; id += 2 {
		if err = f.call(id, "/test.Takes/Echo", "x", false); err == nil {
			err = f.message(id, strings.Repeat("x", 60000), 1<<20, false)
		}
	}
	for end := time.Now().Add(5 * time.Second); r.gaveWay("tiny") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it stands: %v; %d bytes are counted", err, r.room.Bytes())
		}
	}
	f.ends()
	r.empty()
}

// An Envoy's stream is quiet for hours, and what its call holds is older than what
// anybody sent since.
func TestAQuietStreamIsNoReasonToGiveWayHoweverManyStrangersThereAre(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 2 << 20, Others: 2 << 20})
	conn := r.client("honest")
	stream, err := conn.NewStream(t.Context(), &takes.Streams[0], "/test.Takes/All")
	if err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&healthpb.HealthCheckResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	say()
	var wg sync.WaitGroup
	for round := range 4 {
		for i := range 16 {
			bad := r.framed(fmt.Sprintf("bad%d", round*16+i))
			wg.Go(func() {
				_ = bad.call(1, "/test.Takes/All", "x", false)
				_ = bad.message(1, strings.Repeat("x", 3000), 10, false)
				for range 1500 { // until it gives way
					_ = bad.WriteData(1, false, []byte("x"))
				}
			})
		}
		wg.Wait()
	}
	say()
	cut := 0
	for i := range 64 {
		cut += r.gaveWay(fmt.Sprintf("bad%d", i))
	}
	if cut == 0 || r.gaveWay("honest") != 0 {
		t.Errorf("%d of theirs gave way, and %d of who is quiet", cut, r.gaveWay("honest"))
	}
}

func TestStrangersTakeNothingOfTheRoomOfThoseWhoAreKnown(t *testing.T) {
	var cut []string
	r := underway.New(underway.Most{Conn: 100 << 10, Peer: 100 << 10, All: 100 << 10, Others: 100 << 10})
	hold := func(peer string, known bool, n int) *underway.Conn {
		t.Helper()
		near, far := net.Pipe()
		t.Cleanup(func() { _ = near.Close() })
		c := r.Enter(far, peer, func(peer string, _ error) { cut = append(cut, peer) })
		if known {
			c.Known("")
		}
		var b bytes.Buffer
		b.WriteString(http2.ClientPreface + callOf1)
		if err := http2.NewFramer(&b, nil).WriteData(1, false, append(binary.BigEndian.AppendUint32([]byte{0}, 1<<20), make([]byte, n)...)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = near.Write(b.Bytes()) }() // it ends with the test
		for left := b.Len(); left > 0; {
			k, err := c.Read(make([]byte, 64<<10))
			if err != nil {
				t.Fatal(err)
			}
			left -= k
		}
		return c
	}
	hold("agent", true, 60<<10)
	late := hold("late", false, 10<<10)
	late.Known("") // by now
	for i := range 8 {
		hold(fmt.Sprintf("stranger%d", i), false, 30<<10)
	}
	for _, peer := range cut {
		if !strings.HasPrefix(peer, "stranger") {
			t.Errorf("%s gave way", peer)
		}
	}
	if len(cut) == 0 || r.Bytes() < 70<<10 {
		t.Errorf("%v gave way, %d are left", cut, r.Bytes())
	}
}

// heap is what is reachable.
func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc) //nolint:gosec // some MB
}

// What its client gives up, gRPC keeps until its writer has passed it: by nothing that a
// client says does it leave the count while it is held.
func TestWhatIsResetIsCountedUntilItIsPassed(t *testing.T) {
	const most = 2 << 20
	long := strings.Repeat("\xff", 3900)
	calls := func(f *framed, id, n uint32) error { // and their answers wait
		var err error
		for end := id + 2*n; id < end && err == nil; id += 2 {
			err = f.call(id, long, "x", true)
		}
		time.Sleep(10 * time.Millisecond)
		return err
	}
	for name, try := range map[string]func(f *framed, id uint32) error{
		"a refusal that is not read": func(f *framed, id uint32) error {
			err := calls(f, id, 31)
			for end := id + 62; id < end && err == nil; id += 2 {
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			return err
		},
		"a message that is not whole": func(f *framed, id uint32) error {
			var err error
			for end := id + 62; id < end && err == nil; id += 2 {
				err = errors.Join(f.call(id, "/test.Takes/All", "x", false), f.message(id, strings.Repeat("x", 61000), 60000, false), f.WriteRSTStream(id, http2.ErrCodeCancel))
			}
			return err
		},
		"messages that are whole": func(f *framed, id uint32) error {
			var err error
			for end := id + 62; id < end && err == nil; id += 2 {
				err = errors.Join(f.call(id, "/test.Takes/All", "x", false), f.message(id, "stop", 1<<10, false), f.message(id, strings.Repeat("x", 30000), 1<<20, false), f.message(id, strings.Repeat("x", 20000), 1<<20, true), f.WriteRSTStream(id, http2.ErrCodeCancel))
			}
			return err
		},
		"a message that is whole, in a thousand pieces": func(f *framed, id uint32) error {
			err := f.call(id, "/a/b", "x", false) // a service that there is not, and whose DATA gRPC takes
			err = errors.Join(err, f.WriteData(id, false, binary.BigEndian.AppendUint32([]byte{0}, 990)))
			for n := 0; n < 990 && err == nil; n++ {
				err = f.WriteDataPadded(id, false, []byte{0}, make([]byte, 254))
			}
			return err
		},
		"small messages in padded pieces": func(f *framed, id uint32) error {
			err := f.call(id, "/a/b", "x", false)
			for n := 0; n < 240 && err == nil; n++ {
				for _, part := range [][]byte{{0, 0}, {0, 0}, {3, 'x'}, {'x', 'x'}} {
					err = errors.Join(err, f.WriteDataPadded(id, false, part, make([]byte, 255)))
				}
			}
			return err
		},
		"an answer to one who is served": func(f *framed, id uint32) error {
			var err error
			for end := id + 62; id < end && err == nil; id += 2 {
				err = errors.Join(f.call(id, "/test.Takes/Echo", "served", false), f.message(id, strings.Repeat("x", 60000), 1<<20, false))
				time.Sleep(2 * time.Millisecond) // else it is its message that waits
				err = errors.Join(err, f.WriteRSTStream(id, http2.ErrCodeCancel))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, underway.Most{Conn: most, Peer: most, All: most, Others: most})
			f := r.framed("tiny", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			err := errors.Join(f.conn.SetWriteDeadline(time.Now().Add(10*time.Second)), f.WriteWindowUpdate(0, 1<<30), calls(f, 1, 30))
			for id := uint32(1); id < 31 && err == nil; id += 2 { // places for others
				err = f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			before, counted, highest := heap(), r.room.Bytes(), 0
			for id := uint32(101); id < 101+62*200 && err == nil; id += 62 {
				err = try(f, id)
				time.Sleep(time.Millisecond)
				now := r.room.Bytes()
				held := heap() - before
				if highest = max(highest, held); r.gaveWay("tiny") == 0 && held > 2*(now-counted)+(1<<20) {
					t.Fatalf("%d bytes are held by %d streams, and %d are counted", held, id/2, now)
				}
			}
			if errors.Is(err, errTimeout) || r.gaveWay("tiny") != 1 {
				t.Errorf("%v; %d gave way, %d bytes are counted, %d are held", err, r.gaveWay("tiny"), r.room.Bytes(), heap()-before)
			}
			t.Logf("at most %d bytes were held, of %d that may be", highest, most)
			if highest > 3*most {
				t.Errorf("%d bytes were held, of %d that may be", highest, most)
			}
			r.empty()
		})
	}
}

// turn is headers, and a message of zeros in padded pieces of a byte.
func turn(t *testing.T, id uint32, pieces int, headers bool) []byte {
	t.Helper()
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	var err error
	if headers {
		err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true})
	}
	for range pieces {
		err = errors.Join(err, f.WriteDataPadded(id, false, []byte{0}, make([]byte, 254)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ended is what a server writes where it ends a stream.
func ended(t *testing.T, id uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := http2.NewFramer(&b, nil).WriteRSTStream(id, http2.ErrCodeRefusedStream); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// However many messages a client leaves unfinished, of calls that the server ended, the pieces of
// the next are counted; and so many at once are nobody's who means them.
func TestAMessageCountsHoweverManyWereLeftUnfinished(t *testing.T) {
	const streams, frames = 20_000, 1000
	for _, over := range []bool{true, false} {
		turns := []underway.Turn{{Sent: []byte(http2.ClientPreface)}}
		for id := uint32(1); id < 2*streams; id += 2 {
			next := underway.Turn{Sent: turn(t, id, 1, true)}
			if over {
				next.Answered = ended(t, id)
			}
			turns = append(turns, next)
		}
		last, err := underway.Held(append(turns, underway.Turn{Sent: turn(t, 2*streams+1, frames, true)})...)
		if over && (err != nil || last < frames*perPiece) {
			t.Errorf("%v; %d pieces count as %d bytes", err, frames, last)
		} else if !over && err == nil {
			t.Errorf("%d messages that are not whole, of calls that nobody ended, are followed", streams)
		}
	}
}

// What was given back with everything is not given back again by a message that its client
// completes when the call is over.
func TestAMessageThatIsCompletedWhenItsCallIsOverGivesNothingBack(t *testing.T) {
	last, err := underway.Held(underway.Turn{Sent: []byte(http2.ClientPreface)},
		underway.Turn{Sent: turn(t, 1, 4, true), Answered: ended(t, 1), Settled: true},
		underway.Turn{Sent: turn(t, 1, 1, false)}) // the fifth byte makes it whole
	if err != nil || last < 0 {
		t.Errorf("%v; the sum changes by %d", err, last)
	}
}

// A host of many proxies has nothing whole until it has nearly all, as slow as its link is.
func TestWhoReadsSlowlyAndGoesOnIsNotClosed(t *testing.T) {
	const each, perSecond = 200_000, 3 << 20
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	r.room.Patience(500 * time.Millisecond)
	f := r.framed("served", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	err := errors.Join(f.conn.SetDeadline(time.Now().Add(20*time.Second)), f.WriteWindowUpdate(0, 1<<30))
	for id := uint32(1); id < 128 && err == nil; id += 2 {
		err = errors.Join(f.call(id, "/test.Takes/Fill", "served", false), f.message(id, strconv.Itoa(each), 1<<20, false))
	}
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for n, b := 0, make([]byte, 16<<10); n < 64*each; {
		k, err := f.conn.Read(b)
		if err != nil {
			t.Fatalf("after %s and %d bytes: %v; %d gave way", time.Since(begun), n, err, r.gaveWay("served"))
		}
		n += k
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / perSecond)))
	}
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("it took %s: nothing waited for long", took)
	}
}

// The writer passes a stream whose client lets nothing be written on it, and keeps its answer.
func TestAnswersOfCallsThatEndedCountUntilTheirEndIsWritten(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	f := r.framed("served", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	err := f.conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.Copy(io.Discard, f.conn) }()
	for id := uint32(1); id < 128 && err == nil; id += 2 {
		err = errors.Join(f.call(id, "/test.Takes/Fill", "served", false), f.message(id, "200000", 1<<20, true))
		time.Sleep(10 * time.Millisecond)
		err = errors.Join(err, f.WritePing(false, [8]byte{})) // which is answered in a short write
		time.Sleep(10 * time.Millisecond)
	}
	for end := time.Now().Add(time.Second); r.gaveWay("served") == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if errors.Is(err, errTimeout) || r.gaveWay("served") != 1 {
		t.Errorf("%v; %d bytes are counted", err, r.room.Bytes())
	}
	r.empty()
}

// Whoever gives calls up, and reads, slowly as it may be, owes nothing.
func TestWhoResetsAndReadsSlowlyIsNotClosed(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	f := r.framed("slow")
	go func() {
		for b := make([]byte, 16<<10); ; time.Sleep(time.Millisecond) {
			if _, err := f.conn.Read(b); err != nil {
				return
			}
		}
	}()
	for id := uint32(1); id < 1000; id += 2 {
		var err error
		if id%4 == 1 {
			err = errors.Join(f.call(id, strings.Repeat("\xff", 1000), "x", true), f.WriteRSTStream(id, http2.ErrCodeCancel))
		} else {
			err = errors.Join(f.call(id, "/test.Takes/All", "x", false), f.message(id, strings.Repeat("x", 9000), 5000, false), f.WriteRSTStream(id, http2.ErrCodeCancel))
		}
		if err != nil {
			t.Fatalf("%v; %d bytes are counted", err, r.room.Bytes())
		}
		if id%16 == 1 {
			time.Sleep(4 * time.Millisecond)
		}
	}
	r.empty()
	if n := r.gaveWay("slow"); n != 0 {
		t.Errorf("%d gave way", n)
	}
}

// Small as each may be: nobody has a reason to go on where nothing is read.
func TestWhoGoesOnWhereNothingIsReadIsClosed(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 64 << 20, Peer: 64 << 20, All: 64 << 20, Others: 64 << 20})
	r.room.Blocked(100 * time.Millisecond)
	f := r.framed("tiny")
	err := f.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for id := uint32(1); id < 63 && err == nil; id += 2 {
		err = f.call(id, strings.Repeat("\xff", 3900), "x", true)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(150 * time.Millisecond)
	for id := uint32(101); id < 10101 && err == nil && r.gaveWay("tiny") == 0; id += 2 {
		err = errors.Join(f.call(id, "/test.Takes/All", "x", false), f.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	for end := time.Now().Add(5 * time.Second); r.gaveWay("tiny") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it stands: %v; %d bytes are counted", err, r.room.Bytes())
		}
	}
	r.empty()
}

// FuzzStreams: whatever a client sends, and whatever it is answered, what is kept for its
// streams is what the open ones keep, and is never below zero.
func FuzzStreams(f *testing.F) {
	var sent, answered, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	sent.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&sent, nil)
	w.AllowIllegalWrites = true
	head := func(id uint32, end bool) {
		block.Reset()
		_ = enc.WriteField(hpack.HeaderField{Name: ":path", Value: strings.Repeat("x", 300)})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: end, PadLength: 3, Priority: http2.PriorityParam{Weight: 3}})
		if !end {
			_ = w.WriteContinuation(id, true, []byte{0x82})
		}
	}
	_ = w.WriteSettings()
	head(1, true)
	head(3, false)
	_ = w.WriteData(3, true, []byte{0, 0, 0, 0, 9, 1})
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	head(5, true)
	head(4, true)
	a := http2.NewFramer(&answered, nil)
	_ = a.WriteSettingsAck()
	_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = a.WriteData(3, false, make([]byte, 40))
	_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
	_ = a.WriteRSTStream(5, http2.ErrCodeCancel)
	f.Add(sent.Bytes(), answered.Bytes(), 7)
	f.Add(sent.Bytes(), []byte{}, 1)
	f.Fuzz(func(t *testing.T, sent, answered []byte, step int) {
		if keeps, open := underway.Streams(sent, answered, max(1, step)); keeps != 0 || open > len(sent)/9 {
			t.Errorf("%d bytes are kept for no stream, %d are open", keeps, open)
		}
	})
}
