package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
