package server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"signet.example/api"
	"signet.example/test/parts"
)

// unfinished sends messages of an agent's that never end, on so many connections of its
// own and 64 calls on each, and returns in how many bytes.
func (h *host) unfinished(conns int) int {
	h.t.Helper()
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range conns {
		c := h.raw()
		wg.Go(func() {
			n, _ := parts.Unfinished(c, api.AgentAPI_Issue_FullMethodName, 64, 4<<20-5, 16<<10, [2]string{"signet-instance", string(h.instance)}) // it may be closed
			sent.Add(int64(n))
		})
	}
	wg.Wait()
	return int(sent.Load())
}

// raw is a connection of the agent's.
func (h *host) raw() net.Conn {
	h.t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the server is under test
		Certificates: []tls.Certificate{h.svid}, NextProtos: []string{"h2"},
	}}
	c, err := d.DialContext(h.t.Context(), "tcp", h.rig.addr.Agents)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() }) // it may be closed
	return c
}

// inUse is the memory of this process, in which the server runs.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse) //nolint:gosec // below a terabyte
}

func TestAHostsMessagesThatNeverEndTakeLittleMemoryAndNothingOfAnothers(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	bad, good := r.join("front"), r.join("front")
	before := inUse()
	sent := bad.unfinished(6)
	held := inUse() - before
	t.Logf("%d MiB were sent, %d MiB are held", sent>>20, held>>20)
	if held > 160<<20 {
		t.Errorf("%d MiB are held", held>>20)
	}
	if res, err := good.issue("job"); err != nil || res[0].GetError() != "" {
		t.Errorf("another host: %v, %v", res, err)
	}
}

func TestTheConnectionsOfABannedHostEndAndTakeNoMoreMessages(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	if res, err := h.issue("job"); err != nil || res[0].GetError() != "" {
		t.Fatalf("%v, %v", res, err)
	}
	c := h.raw()
	sent, err := parts.Unfinished(c, api.AgentAPI_Issue_FullMethodName, 1, 100, 100, [2]string{"signet-instance", string(h.instance)})
	if err != nil || sent == 0 {
		t.Fatalf("%d bytes, %v", sent, err)
	}
	r.ban(h.id)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // of a TCP connection
	_, err = io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a connection that was open before the ban stays")
	}
	if sent := h.unfinished(4); sent > 2<<20 {
		t.Errorf("it sent %d bytes", sent)
	}
}

// Of an agent, a stream is quiet and a message long under way: both are older than what
// strangers sent since.
func TestStrangersThatFillTheirRoomAtTheAgentsPortCutOffNoAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	report, session := h.session()
	report(&api.Report{})
	eventually(t, "its session", func() bool { return len(connected(t, r)) == 1 })
	ended := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = session.Recv()
		}
		ended <- err
	}()
	long := h.raw()
	if sent, err := parts.Unfinished(long, api.AgentAPI_Issue_FullMethodName, 1, 40000, 16<<10, [2]string{"signet-instance", string(h.instance)}); err != nil || sent == 0 {
		t.Fatalf("%d bytes, %v", sent, err)
	}
	flood := piecesOf(t, api.AgentAPI_Attest_FullMethodName, 24000)
	var gaveWay atomic.Int64
	var wg sync.WaitGroup
	for from := byte(2); from < 6; from++ { // 190 MiB as they are counted
		for range 4 {
			wg.Go(func() {
				c := strangerFrom(t, r.addr.Agents, net.IPv4(127, 0, 0, from))
				if c == nil {
					return
				}
				_, err := c.Write(flood)
				closed := err != nil
				for end := time.Now().Add(10 * time.Second); !closed && gaveWay.Load() == 0 && time.Now().Before(end); {
					_ = c.SetReadDeadline(time.Now().Add(time.Second / 2)) // of a TCP connection
					_, err = io.Copy(io.Discard, c)
					closed = !errors.Is(err, os.ErrDeadlineExceeded)
				}
				if closed {
					gaveWay.Add(1)
				}
			})
		}
	}
	wg.Wait()
	select {
	case err := <-ended:
		t.Errorf("the agent's session: %v", err)
	default:
	}
	_ = long.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // of a TCP connection
	if _, err := io.Copy(io.Discard, long); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("its other connection: %v", err)
	}
	if gaveWay.Load() == 0 {
		t.Error("no stranger gave way")
	}
}

// piecesOf is a call's beginning and a message in so many pieces of a byte.
func piecesOf(t *testing.T, method string, n int) []byte {
	t.Helper()
	var block, all bytes.Buffer
	all.WriteString(http2.ClientPreface)
	enc, w := hpack.NewEncoder(&block), http2.NewFramer(&all, nil)
	err := w.WriteSettings()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		err = errors.Join(err, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	err = errors.Join(err, w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}), w.WriteData(1, false, []byte{0, 0, 0, 0xf0, 0}))
	for range n {
		err = errors.Join(err, w.WriteData(1, false, []byte{7}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}

// strangerFrom is a connection of nobody's from an address of this host's own, nil where
// it was closed for another.
func strangerFrom(t *testing.T, addr string, from net.IP) net.Conn {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: from}}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the server is under test
		Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h2"},
	}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed
	return c
}
