package conns

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func counter() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }

// A28: everyone can make a host key, and hold what it connects with.
func TestAConnectionThatNoAgentCallsOnIsClosed(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, 200*time.Millisecond, AgentsLimits(), counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	var clients, served []net.Conn
	for range 2 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := u.Accept()
		if err != nil {
			t.Fatal(err)
		}
		clients, served = append(clients, c), append(served, s)
	}
	u.Verified(served[1].RemoteAddr(), Caller{Agent: "web"})
	for i, want := range []error{io.EOF, os.ErrDeadlineExceeded} {
		if err := clients[i].SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := clients[i].Read(make([]byte, 1)); !errors.Is(err, want) {
			t.Errorf("connection %d: %v, want %v", i, err, want)
		}
	}
	for i := range served {
		_ = errors.Join(served[i].Close(), clients[i].Close()) // one is closed already
	}
	if len(u.open) != 0 || u.unverified.len() != 0 || len(u.sources) != 0 || u.held.n != 0 || len(u.held.by) != 0 {
		t.Errorf("connections are still known: %+v", u)
	}
}

// What agents hold and what strangers hold are two rooms, and of the first each agent
// has a part.
func TestStrangersTakeNoRoomOfAgentsAndNoAgentThatOfAnother(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, time.Minute, Limits{Source: [classes]int{2, 2, 2}, All: [classes]int{4, 4, 4}, Agent: 2, Agents: 3}, counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	connect := func(host byte) (near, far net.Conn) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, host)}}
		near, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if far, err = u.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = errors.Join(near.Close(), far.Close()) }) // one may be closed already
		return near, far
	}
	open := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	agent := func(name string) net.Conn {
		near, far := connect(1)
		u.Verified(far.RemoteAddr(), Caller{Agent: name})
		return near
	}
	web1, web2, orders := agent("web"), agent("web"), agent("orders")
	if web3 := agent("web"); !open(web3) || open(web1) || !open(web2) || !open(orders) {
		t.Error("an agent's third connection takes the place of its first, and of no other")
	}
	if other := agent("other"); !open(other) || open(web2) || !open(orders) {
		t.Error("another agent takes the place of the one that has two")
	}
	if more := agent("more"); open(more) || !open(orders) {
		t.Error("where each has one, what is in use stays")
	}
	strangers := make([]net.Conn, 12)
	for i := range strangers {
		strangers[i], _ = connect(byte(2 + i/3))
	}
	for i, c := range strangers {
		if open(c) != (i == 7 || i == 8 || i == 10 || i == 11) { // two of each of the last two addresses
			t.Errorf("stranger %d: open: %t", i, open(c))
		}
	}
	near, far := connect(9)
	far.(*Conn).Shook(false)
	for i := range 8 {
		connect(byte(10 + i))
	}
	if !open(near) || !open(orders) {
		t.Error("one whose handshake is complete gave way to others that had none, or an agent to strangers")
	}
}

// A28: what is sent is held in memory until its message is complete, and one
// connection may carry a thousand messages.
func TestAConnectionThatNoAgentCalledOnMaySendLittle(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, time.Minute, AgentsLimits(), counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	for name, may := range map[string]int{"in its handshake": handshakeBytes, "of nobody": unverifiedBytes, "of an agent": 3 * unverifiedBytes} {
		client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		served, err := u.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if may > handshakeBytes {
			served.(*Conn).Shook(false)
		}
		if may > unverifiedBytes {
			u.Verified(served.RemoteAddr(), Caller{Agent: "web"})
		}
		const sent = 3 * unverifiedBytes
		go func() { // ends by Close
			_, _ = io.Copy(client, io.LimitReader(zeros{}, sent)) // it may be refused
			_ = client.Close()
		}()
		got, err := io.Copy(io.Discard, struct{ io.Reader }{served})
		if got > int64(may) || got < int64(may)-(64<<10) || (may < sent) != errors.Is(err, errUnverifiedBytes) {
			t.Errorf("a connection %s: %d bytes, %v", name, got, err)
		}
		_ = served.Close() // closed already where it was refused
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
