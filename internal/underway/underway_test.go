package underway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"signet.example/internal/overload"
	"signet.example/internal/underway"
	"signet.example/test/parts"
)

const check = "/grpc.health.v1.Health/Check"

// counting are credentials of everybody, whose connections are in a Room. The peer is
// what a connection's first eight bytes before HTTP/2 say.
type counting struct {
	credentials.TransportCredentials
	room *underway.Room
	cut  func(peer string, err error)
	// methods are those of the server, which bound what "only" calls.
	methods func() underway.Methods
}

func (c counting) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var name [8]byte
	if _, err := io.ReadFull(conn, name[:]); err != nil {
		return nil, nil, err
	}
	peer := string(bytes.TrimRight(name[:], " "))
	if peer == "tiny" { // the kernel takes little for who does not read
		if err := conn.(*net.TCPConn).SetWriteBuffer(4096); err != nil {
			return nil, nil, err
		}
	}
	in := c.room.Enter(conn, peer, c.cut)
	if peer == "only" {
		in.Takes(c.methods())
	}
	if strings.HasPrefix(peer, "known") {
		in.Known("")
	}
	return in, nil, nil
}

func (c counting) Clone() credentials.TransportCredentials { return c }

// echo takes what it is sent; slow calls wait until the test ends.
type echo struct {
	healthpb.UnimplementedHealthServer
	slow chan struct{}
}

func (e echo) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if strings.HasPrefix(req.GetService(), "slow") {
		select {
		case <-e.slow:
		case <-ctx.Done():
		}
	}
	return &healthpb.HealthCheckResponse{}, nil
}

// takes is a streaming method that reads what it is sent, or does not.
var takes = grpc.ServiceDesc{ServiceName: "test.Takes", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
	StreamName: "All", ClientStreams: true, ServerStreams: true,
	Handler: func(_ any, s grpc.ServerStream) error {
		for {
			var m healthpb.HealthCheckRequest
			if err := s.RecvMsg(&m); err != nil {
				return nil //nolint:nilerr // the client has left
			}
			if m.GetService() == "stop" {
				<-s.Context().Done()
				return nil
			}
			if err := s.SendMsg(&healthpb.HealthCheckResponse{}); err != nil {
				return err
			}
		}
	},
}, {
	StreamName: "Fill", ClientStreams: true, ServerStreams: true, // answers with as much as it is asked for
	Handler: func(_ any, s grpc.ServerStream) error {
		underway.Of(s.Context()).Served()
		var m healthpb.HealthCheckRequest
		if err := s.RecvMsg(&m); err != nil {
			return err
		}
		n, err := strconv.Atoi(m.GetService())
		if err != nil {
			return err
		}
		m.Service = strings.Repeat("x", n)
		if err := s.SendMsg(&m); err != nil {
			return err
		}
		_ = s.RecvMsg(&m) // until its client sends no more
		return nil
	},
}, {
	StreamName: "Echo", ClientStreams: true, ServerStreams: true,
	Handler: func(_ any, s grpc.ServerStream) error {
		if strings.HasPrefix(peerOf(s), "served") {
			underway.Of(s.Context()).Served()
		}
		for {
			var m healthpb.HealthCheckRequest
			if err := s.RecvMsg(&m); err != nil {
				return nil //nolint:nilerr // the client has left
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	},
}}}

// peerOf is the :authority that a client named.
func peerOf(s grpc.ServerStream) string {
	return strings.Join(metadata.ValueFromIncomingContext(s.Context(), ":authority"), "")
}

type rig struct {
	t    *testing.T
	addr string
	room *underway.Room
	slow chan struct{}
	// begun are the streams that the server began, of any method.
	begun   atomic.Int64
	methods underway.Methods

	mu  sync.Mutex
	cut []string // peers whose connections gave way
}

func newRig(t *testing.T, most underway.Most) *rig {
	t.Helper()
	r := &rig{t: t, room: underway.New(most), slow: make(chan struct{})}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	s := grpc.NewServer(grpc.Creds(counting{insecure.NewCredentials(), r.room, func(peer string, err error) {
		if !errors.Is(err, underway.ErrFull) && !errors.Is(err, underway.ErrUnread) && !errors.Is(err, overload.ErrShort) && !errors.Is(err, underway.ErrUnmeant) {
			t.Error(err)
		}
		r.mu.Lock()
		r.cut = append(r.cut, peer)
		r.mu.Unlock()
	}, func() underway.Methods { return r.methods }}), grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		r.begun.Add(1)
		return ctx, nil
	}), grpc.StatsHandler(r.room.Handler()), grpc.ForceServerCodecV2(r.room.Codec()), grpc.MaxConcurrentStreams(64))
	healthpb.RegisterHealthServer(s, echo{slow: r.slow})
	s.RegisterService(&takes, nil)
	r.methods = underway.MethodsOf(s)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() {
		r.room.Close()
		s.Stop()
	})
	return r
}

func (r *rig) raw(peer string) net.Conn { return r.dial(peer, net.Dialer{}) }

func (r *rig) dial(peer string, d net.Dialer) net.Conn {
	r.t.Helper()
	c, err := d.DialContext(r.t.Context(), "tcp", r.addr)
	if err == nil {
		_, err = fmt.Fprintf(c, "%-8s", peer)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() }) // it may be closed
	return c
}

func (r *rig) client(peer string) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", addr)
			if err == nil {
				_, err = fmt.Fprintf(c, "%-8s", peer)
			}
			return c, err
		}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (r *rig) gaveWay(peer string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, p := range r.cut {
		if p == peer {
			n++
		}
	}
	return n
}

func (r *rig) empty() {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Second); r.room.Bytes() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%d bytes are left", r.room.Bytes())
		}
	}
}

func TestMessagesThatNeverEndHoldNoMoreThanTheRoom(t *testing.T) {
	for _, piece := range []int{16384, 1} {
		most := underway.Most{Conn: 1 << 20, Peer: 2 << 20, All: 8 << 20, Others: 8 << 20}
		r := newRig(t, most)
		honest := healthpb.NewHealthClient(r.client("honest"))
		var wg sync.WaitGroup
		for i := range 12 {
			conn := r.raw("bad")
			wg.Go(func() {
				if sent, err := parts.Unfinished(conn, check, 32, 65531, piece); err == nil && sent >= most.Conn {
					t.Errorf("connection %d took %d bytes", i, sent)
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		calls := 0
		for ended := false; !ended; calls++ {
			select {
			case <-done:
				ended = true
			default:
			}
			if n := r.room.Bytes(); n > most.All+(64<<10) {
				t.Errorf("%d bytes are held", n)
			}
			if _, err := honest.Check(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", 30<<10)}); err != nil {
				t.Fatalf("somebody else's call: %v", err)
			}
		}
		t.Logf("pieces of %d: %d calls of another beside it; %d connections gave way", piece, calls, r.gaveWay("bad"))
		if r.gaveWay("bad") == 0 || r.gaveWay("honest") != 0 {
			t.Errorf("%d of theirs gave way, and %d of another's", r.gaveWay("bad"), r.gaveWay("honest"))
		}
	}
}

// However many agents one role makes, those of others keep their room.
func TestPeersOfOneShareHaveOneRoomTogether(t *testing.T) {
	most := underway.Most{Conn: 64 << 10, Peer: 64 << 10, Share: 128 << 10, All: 1 << 20, Others: 1 << 20}
	gone := map[string]int{}
	var enter func(peer, share string) // and hold 48 KiB
	r := underway.New(most)
	enter = func(peer, share string) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = near.Close() })
		c := r.Enter(far, peer, func(peer string, err error) {
			if !errors.Is(err, underway.ErrFull) || !strings.Contains(err.Error(), "of all of role:r") {
				t.Error(err)
			}
			gone[peer]++
		})
		c.Belongs(peer, share)
		go func() {
			_, _ = io.WriteString(near, http2.ClientPreface+callOf1)
			w := http2.NewFramer(near, nil)
			_ = w.WriteData(1, false, binary.BigEndian.AppendUint32([]byte{0}, 1<<20))
			for range 3 {
				_ = w.WriteData(1, false, make([]byte, 16<<10))
			}
		}()
		b := make([]byte, 64<<10)
		for read := 0; read < 48<<10; {
			n, err := c.Read(b)
			if err != nil {
				return // it gave way
			}
			read += n
		}
	}
	enter("one", "")
	enter("two", "")
	for n := range 20 {
		enter(fmt.Sprint("task", n), "role:r")
	}
	if gone["one"]+gone["two"] > 0 || len(gone) != 18 {
		t.Errorf("gave way: %v", gone)
	}
	if n := r.Bytes(); n < 4*48<<10 || n > 5*48<<10 {
		t.Errorf("%d bytes are held", n)
	}
}

// However many there are: those give way whose bytes have been there longest.
func TestManyPeersTogetherKeepNobodyOut(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 2 << 20, Others: 2 << 20})
	honest := healthpb.NewHealthClient(r.client("honest"))
	var wg sync.WaitGroup
	for i := range 16 {
		conn := r.raw(fmt.Sprintf("bad%d", i))
		wg.Go(func() { _, _ = parts.Unfinished(conn, check, 12, 60000, 16384) })
	}
	for range 100 {
		if _, err := honest.Check(t.Context(), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", 30<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if n := r.gaveWay("honest"); n != 0 {
		t.Errorf("%d of somebody who means it gave way", n)
	}
}

// What is whole is counted until its handler ends, or for a stream until it is read.
func TestWholeMessagesAreCountedWhileTheyAreHeld(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	c := healthpb.NewHealthClient(r.client("slow"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, _ = c.Check(ctx, &healthpb.HealthCheckRequest{Service: "slow" + strings.Repeat("x", 60<<10)})
		})
	}
	for end := time.Now().Add(5 * time.Second); r.gaveWay("slow") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are held by calls that do not end", r.room.Bytes())
		}
	}
	cancel()
	wg.Wait()
	r.empty()
}

// Ten KiB on the wire, and twice of it once it is there: what is held is that.
func TestWhatAMessageBecameIsCountedWhileItIsHeld(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	c := healthpb.NewHealthClient(r.client("slow"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	m := &healthpb.HealthCheckRequest{Service: "slow"}
	m.ProtoReflect().SetUnknown(bytes.Repeat([]byte{0x78, 0x01}, 5<<10)) // kept as they are: 20 KiB of 10
	for range 32 {
		wg.Go(func() { _, _ = c.Check(ctx, m) }) // until it is given up
	}
	for end := time.Now().Add(5 * time.Second); r.room.Bytes() < 32*(20<<10); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are counted of 32 messages that take 20 KiB each", r.room.Bytes())
		}
	}
	cancel()
	wg.Wait()
	r.empty()
}

func TestWhatIsTakenIsCountedOutToTheLastByte(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	conn, givenUp := r.client("honest"), r.client("honest")
	stream, err := conn.NewStream(t.Context(), &takes.Streams[0], "/test.Takes/All")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		m := &healthpb.HealthCheckRequest{Service: strings.Repeat("x", i*400%(100<<10))}
		if err := stream.SendMsg(m); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&healthpb.HealthCheckResponse{}); err != nil {
			t.Fatal(err)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		aborted, stop := context.WithTimeout(t.Context(), time.Millisecond/4)
		_, _ = healthpb.NewHealthClient(givenUp).Check(aborted, m) // it may not even be sent
		stop()
	}
	for end := time.Now().Add(5 * time.Second); r.room.Bytes() > 16<<10; time.Sleep(time.Millisecond) { // the stream's own; calls end a moment after their answer
		if time.Now().After(end) {
			t.Fatalf("%d bytes are counted, of which nobody holds any", r.room.Bytes())
		}
	}
	if n := r.gaveWay("honest"); n != 0 {
		t.Errorf("%d gave way", n)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	_ = stream.RecvMsg(&healthpb.HealthCheckResponse{}) // its end
	r.empty()
}

// gRPC ends it before it begins, so that no handler tells of its message.
func TestACallWhoseTimeIsOverWhenItComesLeavesNothingCounted(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	conn := r.raw("honest")
	var sent, block bytes.Buffer
	sent.WriteString(http2.ClientPreface)
	to, enc := http2.NewFramer(&sent, nil), hpack.NewEncoder(&block)
	err := to.WriteSettings()
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/grpc.health.v1.Health/Check"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"grpc-timeout", "0n"},
	} {
		err = errors.Join(err, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	message := append([]byte{0, 0, 0, 0x28, 0}, make([]byte, 10<<10)...) // of 10 KiB
	err = errors.Join(err, to.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}), to.WriteData(1, true, message))
	if _, wrong := conn.Write(sent.Bytes()); err != nil || wrong != nil {
		t.Fatal(err, wrong)
	}
	answers := http2.NewFramer(nil, conn)
	for {
		f, err := answers.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagHeadersEndStream) {
			break
		}
	}
	r.empty()
}

// Nobody reads them, whole as they are.
func TestMessagesThatAStreamDoesNotReadAreCounted(t *testing.T) {
	r := newRig(t, underway.Most{Conn: 256 << 10, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
	conn := r.client("bad")
	for range 8 {
		stream, err := conn.NewStream(t.Context(), &takes.Streams[0], "/test.Takes/All")
		if err == nil {
			err = stream.SendMsg(&healthpb.HealthCheckRequest{Service: "stop"})
		}
		for i := 0; i < 600 && err == nil; i++ {
			err = stream.SendMsg(&healthpb.HealthCheckRequest{Service: "x"})
		}
	}
	for end := time.Now().Add(5 * time.Second); r.gaveWay("bad") == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are held", r.room.Bytes())
		}
	}
}

// callOf1 begins stream 1.
const callOf1 = "\x00\x00\x01\x01\x04\x00\x00\x00\x01\x83"

func TestAConnectionThatIsAnothersByNowIsCountedAsHis(t *testing.T) {
	r := underway.New(underway.Most{Conn: 100 << 10, Peer: 2 << 10, All: 100 << 10, Others: 100 << 10})
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	c := r.Enter(far, "one", nil)
	send := func(n int) error {
		var b bytes.Buffer
		if err := http2.NewFramer(&b, nil).WriteData(1, false, append(binary.BigEndian.AppendUint32([]byte{0}, 1<<20), make([]byte, n)...)); err != nil {
			return err
		}
		go func() { _, _ = near.Write(b.Bytes()) }()
		_, err := c.Read(make([]byte, 64<<10))
		return err
	}
	go func() { _, _ = io.WriteString(near, http2.ClientPreface+callOf1) }()
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := send(1000); err != nil || r.Bytes() < 1000 {
		t.Fatalf("%v, %d", err, r.Bytes())
	}
	c.Belongs("two", "")
	other := r.Enter(near, "one", nil)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Bytes() < 1000 {
		t.Errorf("%d", r.Bytes())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Bytes() != 0 {
		t.Errorf("a closed connection holds %d", r.Bytes())
	}
}

// What gRPC hands to nobody is of no message: neither padding nor what comes on a stream
// before its headers says where messages begin and end. Whole messages that are read pay
// back no more than was counted for them.
func TestWhatGRPCDropsPutsNothingOutOfStep(t *testing.T) {
	fake := []byte{0, 255, 255, 255, 255} // the beginning of a message of 4 GiB
	for name, prelude := range map[string]func(w *http2.Framer, open func() error) error{
		"padding": func(w *http2.Framer, open func() error) error {
			w.AllowIllegalWrites = true // padding that is not zero
			return errors.Join(open(), w.WriteDataPadded(3, false, nil, fake))
		},
		"data before headers": func(w *http2.Framer, open func() error) error {
			return errors.Join(w.WriteData(3, false, fake), open())
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20})
			conn := r.raw("bad")
			if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			w := http2.NewFramer(conn, conn)
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			open := func(id uint32) error {
				block.Reset()
				var err error
				for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/test.Takes/All"}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
					err = errors.Join(err, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
				}
				return errors.Join(err, w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}))
			}
			const unfinished, tiny = 60000, 100
			long := append(binary.BigEndian.AppendUint32([]byte{0}, unfinished), make([]byte, unfinished-1)...)
			err := errors.Join(w.WriteSettings(), open(1))
			for len(long) > 0 && err == nil {
				k := min(len(long), 16384)
				err = w.WriteData(1, false, long[:k])
				long = long[k:]
			}
			err = errors.Join(err, prelude(w, func() error { return open(3) }), w.WriteData(3, false, make([]byte, tiny*prefixLen)))
			if err != nil {
				t.Fatal(err)
			}
			for answers := 0; answers < tiny*prefixLen; {
				if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				f, err := w.ReadFrame()
				if err != nil {
					t.Fatalf("after %d bytes of answers: %v", answers, err)
				}
				if d, ok := f.(*http2.DataFrame); ok {
					answers += len(d.Data())
				}
			}
			if n := r.room.Bytes(); n < unfinished {
				t.Errorf("%d bytes are counted, and %d are held", n, unfinished)
			}
		})
	}
}

const prefixLen, perPiece = 5, 512

// sumOf is the sum of what a reader of HTTP/2 that is not ours finds in all, and how many
// bytes it read before the first mistake.
func sumOf(all []byte) (sum, read int) {
	read = min(len(all), len(http2.ClientPreface))
	r := http2.NewFramer(io.Discard, bytes.NewReader(all[read:]))
	type part struct {
		bytes  []byte
		pieces int
		pads   int // of its frames
		last   int // of them, of the last frame
	}
	streams := map[uint32]*part{}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			break
		}
		h := f.Header()
		read += 9 + int(h.Length)
		s := streams[h.StreamID]
		if s == nil {
			s = &part{}
			streams[h.StreamID] = s
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if len(f.Data()) > 0 {
				s.pieces++
				s.bytes = append(s.bytes, f.Data()...)
				if s.last = int(h.Length) - len(f.Data()); s.last > 0 {
					s.last-- // the byte that says how many
				}
				s.pads += s.last
			}
			for len(s.bytes) >= prefixLen {
				n := prefixLen + int(binary.BigEndian.Uint32(s.bytes[1:]))
				if len(s.bytes) < n {
					break
				}
				sum += n + perPiece
				s.bytes, s.pieces, s.pads = s.bytes[n:], min(1, len(s.bytes)-n), s.last*min(1, len(s.bytes)-n)
			}
			if f.StreamEnded() {
				*s = part{}
			}
		case *http2.HeadersFrame, *http2.RSTStreamFrame:
			*s = part{}
		}
	}
	for _, s := range streams {
		if len(s.bytes) > 0 {
			sum += len(s.bytes) + s.pieces*perPiece + s.pads
		}
	}
	return sum, read
}

// FuzzFrames: whatever comes, in whatever pieces, the sum is that of the messages that
// another reader of HTTP/2 finds in it, is never below zero, and no more than a few times
// the bytes.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&b, nil)
	w.AllowIllegalWrites = true
	_ = w.WriteSettings()
	_ = w.WriteData(1, false, []byte{0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 9})
	_ = w.WriteData(3, true, []byte{0, 0, 0, 0, 3, 1, 2})
	_ = w.WriteDataPadded(5, false, []byte{0, 0, 0, 0, 3, 1}, []byte{0, 255, 255, 255, 255})
	_ = w.WriteDataPadded(5, false, []byte{2, 3, 0}, nil)
	_ = w.WriteDataPadded(5, false, nil, []byte{0, 0, 0})
	_ = w.WriteData(7, false, []byte{0, 255, 255, 255, 255})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: []byte{0x82}, EndHeaders: true})
	_ = w.WriteData(7, false, make([]byte, 50))
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	f.Add(b.Bytes(), 7)
	f.Add([]byte(strings.Repeat("\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00", 20)), 1)
	f.Add([]byte(http2.ClientPreface+"\x00\x00\x02\x00\x08\x00\x00\x00\x01\x09\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01"), 1)
	f.Fuzz(func(t *testing.T, all []byte, step int) {
		whole := underway.Sum(all, len(all)+1)
		if step < 1 {
			step = 1
		}
		if pieces := underway.Sum(all, step); pieces != whole || whole < 0 || whole > 600*len(all) {
			t.Errorf("%d in pieces of %d, %d at once, of %d bytes", pieces, step, whole, len(all))
		}
		want, read := sumOf(all)
		if got := underway.Sum(all[:read], read+1); len(all) < 32<<10 && got != want { // fewer streams than are followed
			t.Errorf("%d, but the messages that are in it are %d, of %d bytes", got, want, read)
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
