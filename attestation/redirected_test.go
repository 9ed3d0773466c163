package attestation

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/redirect"
	"signet.example/test/parts"
)

// redirecting is a host whose connections from an address are led to one listener.
type redirecting struct {
	t    *testing.T
	l    net.Listener
	from netip.Addr
}

var ledTo = netip.MustParseAddrPort("127.0.0.1:15001")

func newRedirecting(t *testing.T) *redirecting {
	t.Helper()
	for _, args := range []string{"route replace default via " + parts.AnotherHost, "addr replace 2001:db8:1::1/64 dev wire nodad", "-6 route replace default dev wire"} {
		if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	if err := redirect.Up(redirect.Rules{EgressPort: ledTo.Port(), IgnoreUIDs: []uint32{1337}}); err != nil {
		t.Fatal(err)
	}
	return at(t, ledTo, parts.ThisHost)
}

func at(t *testing.T, listener netip.AddrPort, from string) *redirecting {
	t.Helper()
	l, err := net.Listen("tcp", listener.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &redirecting{t, l, netip.MustParseAddr(from)}
}

// call is a connection from a port to a destination, and what was accepted of it: with some bytes
// already on it.
func (r *redirecting) call(port uint16, to string) (client *net.TCPConn, server net.Conn) {
	r.t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.from, port)), Timeout: 5 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
	}}
	c, err := d.DialContext(context.WithoutCancel(r.t.Context()), "tcp", to)
	if err != nil {
		r.t.Fatal(err)
	}
	server, err = r.l.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _, _ = c.Close(), server.Close() })
	r.says(c, server)
	return c.(*net.TCPConn), server
}

// answered is a connection that has had an answer, and stays.
func (r *redirecting) answered(port uint16, to string) {
	r.t.Helper()
	c, s := r.call(port, to)
	r.says(s, c)
}

func (r *redirecting) until(not string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal(not)
		}
	}
}

func (r *redirecting) says(from, to net.Conn) {
	r.t.Helper()
	if _, err := from.Write([]byte("hello")); err != nil {
		r.t.Fatal(err)
	}
	if _, err := to.Read(make([]byte, 16)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redirecting) expect(what string, server net.Conn, to string, want error) {
	r.t.Helper()
	o, err := RedirectedOwners(addressOf(server.RemoteAddr()), netip.MustParseAddrPort(to), addressOf(server.LocalAddr()))
	if !errors.Is(err, want) || err == nil && (len(o) != 1 || o[0].UID != ourUID) {
		r.t.Errorf("%s: %+v, %v, want %v", what, o, err, want)
	}
}

const one, other = "203.0.113.7:80", "203.0.113.8:80"

func TestARedirectedConnectionHasItsOwnerWhereItsPortWasRewritten(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	r := newRedirecting(t)
	first, kept := r.call(40000, one)
	_, rewritten := r.call(40000, other)
	if _, err := ConnectionOwner(addressOf(rewritten.RemoteAddr()), netip.MustParseAddrPort(other)); !errors.Is(err, ErrNoOwner) {
		t.Fatalf("its port was not rewritten: %v", err)
	}
	r.expect("as it was", kept, one, nil)
	r.expect("rewritten", rewritten, other, nil)
	r.expect("rewritten, said to be to where nobody calls", rewritten, "203.0.113.9:80", ErrNoOwner)

	if err := first.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.expect("half closed", kept, one, nil)

	// One of another user, to the same destination.
	parts.AsUser(t, 1000, func() { r.call(40001, other) })
	owners, err := RedirectedOwners(addressOf(rewritten.RemoteAddr()), netip.MustParseAddrPort(other), ledTo)
	if err != nil || len(owners) != 2 || owners[0].UID+owners[1].UID != ourUID+1000 {
		t.Errorf("rewritten, and another user calls there: %+v, %v", owners, err)
	}
	r.expect("as it was, elsewhere", kept, one, nil)
}

func TestARedirectedConnectionOverIPv6HasItsOwnerWhereItsPortWasRewritten(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	newRedirecting(t) // of IPv4, which has the same ports
	const first, second = "[2001:db9::7]:80", "[2001:db9::8]:80"
	r := at(t, netip.MustParseAddrPort("[::1]:15001"), "2001:db8:1::1")
	_, kept := r.call(40000, first)
	_, rewritten := r.call(40000, second)
	if _, err := ConnectionOwner(addressOf(rewritten.RemoteAddr()), netip.MustParseAddrPort(second)); !errors.Is(err, ErrNoOwner) {
		t.Fatalf("its port was not rewritten: %v", err)
	}
	r.expect("as it was", kept, first, nil)
	r.expect("rewritten", rewritten, second, nil)
	r.expect("rewritten, said to be to where nobody calls", rewritten, "[2001:db9::9]:80", ErrNoOwner)
	parts.AsUser(t, 1000, func() { r.call(40001, second) })
	if owners, err := RedirectedOwners(addressOf(rewritten.RemoteAddr()), netip.MustParseAddrPort(second), addressOf(rewritten.LocalAddr())); err != nil || len(owners) != 2 {
		t.Errorf("rewritten, and another user calls there: %+v, %v", owners, err)
	}
}

// An application that closes first has a socket of each of its last connections for a minute.
func TestARedirectedConnectionHasItsOwnerAfterManyThatHaveEnded(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	r := newRedirecting(t)
	for i := range uint16(maxCallers + 50) {
		c, s := r.call(41000+i, other)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			t.Fatal(n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.call(40000, one)
	_, rewritten := r.call(40000, other)
	r.expect("rewritten", rewritten, other, nil)
}

func TestARedirectedConnectionIsNotThatOfWhoElseCallsThere(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	r := newRedirecting(t)
	r.call(40000, one)
	r.answered(40002, other)
	for name, leave := range map[string]func(c *net.TCPConn) error{
		"closed":      (*net.TCPConn).Close,
		"reset":       func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
		"half closed": (*net.TCPConn).CloseWrite,
	} {
		c, s := r.call(40000, other)
		if err := leave(c); err != nil {
			t.Fatal(err)
		}
		r.until("the other end was not told", func() bool {
			a, err := accepted(ledTo, addressOf(s.RemoteAddr()))
			return err != nil || a.state != tcpEstablished
		})
		r.expect(name, s, other, ErrNoOwner)
		_, _ = c.Close(), s.Close() // so that its port is free
	}
}

// Whoever drops what comes to his socket has it ended by its own kernel, without a word to the other end.
func TestACallerWhoWentWithoutAWordIsNobodyElse(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	r := newRedirecting(t)
	r.call(40000, one)
	r.answered(40002, other)
	c, s := r.call(40000, other)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := errors.Join(raw.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1),
			unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop}))
	}), err); err != nil {
		t.Fatal(err)
	}
	r.says(c, s)
	own := addressOf(c.LocalAddr())
	r.until("its socket stays", func() bool {
		callers, err := callersOf(own.Addr(), netip.MustParseAddrPort(other))
		return err == nil && !slices.ContainsFunc(callers, func(s diagSocket) bool { return s.local == own && s.state == tcpEstablished })
	})
	if a, err := accepted(ledTo, addressOf(s.RemoteAddr())); err != nil || a.state != tcpEstablished {
		t.Fatalf("the other end was told: %+v, %v", a, err)
	}
	r.expect("gone without a word", s, other, ErrNoOwner)
}

func TestWhoeverCannotBeNamedIsNoOwner(t *testing.T) {
	end := diagSocket{state: tcpEstablished, carried: carried{true, 0, 0, 100}}
	caller := diagSocket{state: tcpEstablished, inode: 7, owner: SocketOwner{UID: 1000}, carried: carried{true, 101, 100, 0}}
	for what, spoil := range map[string]func(*diagSocket){
		"closed with bytes on the way": func(s *diagSocket) { s.state, s.inode, s.owner.UID = tcpFinWait1, 0, 0 },
		"of a user without a number":   func(s *diagSocket) { s.owner.UID = overflowUID },
	} {
		spoilt := caller
		spoil(&spoilt)
		if owners, err := ownersOf([]diagSocket{caller, spoilt}, end, end); !errors.Is(err, ErrNoOwner) {
			t.Errorf("%s: %+v, %v", what, owners, err)
		}
	}
	if owners, err := ownersOf([]diagSocket{caller, caller}, end, end); err != nil || len(owners) != 1 {
		t.Errorf("%+v, %v", owners, err)
	}
	answered := diagSocket{state: tcpFinWait1, carried: carried{true, 101, 100, 900}} // and closed
	if owners, err := ownersOf([]diagSocket{answered, caller}, end, end); err != nil || len(owners) != 1 || owners[0].UID != 1000 {
		t.Errorf("beside a connection that ends: %+v, %v", owners, err)
	}
	answered.carried.known = false
	if owners, err := ownersOf([]diagSocket{answered, caller}, end, end); !errors.Is(err, ErrNoOwner) {
		t.Errorf("beside one of which nothing is known: %+v, %v", owners, err)
	}
}

func TestOnlyWhatCanBeTheOtherEndFits(t *testing.T) {
	at := carried{true, 0, 0, 100}
	for what, c := range map[string]struct {
		caller carried
		fits   bool
	}{
		"the same":                {carried{true, 101, 100, 0}, true},
		"not acknowledged yet":    {carried{true, 1, 100, 0}, true},
		"with its end":            {carried{true, 102, 100, 0}, false},
		"sent less":               {carried{true, 51, 50, 0}, false},
		"sent more, acknowledged": {carried{true, 201, 200, 0}, false},
		"has had an answer":       {carried{true, 101, 100, 900}, false},
		"not known":               {carried{false, 101, 100, 0}, false},
	} {
		if c.caller.fits(at, at) != c.fits {
			t.Error(what)
		}
	}
}
