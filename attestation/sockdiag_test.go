package attestation

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

var ourUID = uint32(os.Geteuid())

func addressOf(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// pair is a connection within this process.
func pair(t *testing.T, listen, dial string) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		parts.Missing(t, err.Error()) // no IPv6 here
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	client, err = net.Dial("tcp", net.JoinHostPort(dial, port))
	if err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

func TestTheOwnerOfAConnectionIsFoundByItsFourAddresses(t *testing.T) {
	for name, at := range map[string][2]string{
		"IPv4": {"127.0.0.1:0", "127.0.0.1"}, "IPv6": {"[::1]:0", "::1"}, "a wildcard": {"0.0.0.0:0", "127.0.0.9"},
	} {
		client, server := pair(t, at[0], at[1])
		o, err := ConnectionOwner(addressOf(client.LocalAddr()), addressOf(client.RemoteAddr()))
		if err != nil || o.UID != ourUID {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
		// The other end, too: the answer is about the end that was asked for.
		if _, err := ConnectionOwner(addressOf(server.LocalAddr()), addressOf(server.RemoteAddr())); err != nil {
			t.Errorf("%s, the server's end: %v", name, err)
		}
		other := netip.AddrPortFrom(addressOf(client.LocalAddr()).Addr(), addressOf(client.LocalAddr()).Port()^1)
		if o, err := ConnectionOwner(other, addressOf(client.RemoteAddr())); !errors.Is(err, ErrNoOwner) {
			t.Errorf("%s: of another port: %+v, %v", name, o, err)
		}
	}
}

func TestAnIPv4ConnectionOfAnIPv6SocketHasItsOwner(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		parts.Missing(t, err.Error()) // no IPv6 here
	}
	defer func() { _ = unix.Close(fd) }()
	at := addressOf(l.Addr())
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(at.Port()), Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if o, err := ConnectionOwner(addressOf(c.RemoteAddr()), at); err != nil || o.UID != ourUID {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestAConnectionThatItsOwnerLeftIsNobodys(t *testing.T) {
	left := func(name string, leave func(c *net.TCPConn), want error) {
		client, server := pair(t, "127.0.0.1:0", "127.0.0.1")
		local, remote := addressOf(client.LocalAddr()), addressOf(client.RemoteAddr())
		leave(client.(*net.TCPConn))
		var o SocketOwner
		var err error
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if o, err = ConnectionOwner(local, remote); errors.Is(err, want) {
				break
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
		_ = server.Close()
	}
	left("closed, with bytes on the way", func(c *net.TCPConn) { _, _ = c.Write([]byte("GET /")); _ = c.Close() }, ErrNoOwner)
	left("closed", func(c *net.TCPConn) { _ = c.Close() }, ErrNoOwner)
	left("reset", func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, ErrNoOwner)
	left("half closed, and still held", func(c *net.TCPConn) { _ = c.CloseWrite() }, nil)

	// At a loopback address others have no socket of their own address: it was rewritten.
	if o, err := ConnectionOwner(netip.MustParseAddrPort("192.0.2.7:40000"), netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, ErrNoOwner) || !strings.Contains(err.Error(), "rewritten") {
		t.Errorf("from elsewhere to a loopback address: %+v, %v", o, err)
	}
	// A gone connection's port that somebody listens on is not that connection.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if o, err := ConnectionOwner(addressOf(l.Addr()), netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, ErrNoOwner) {
		t.Errorf("a listener was taken for a connection: %+v, %v", o, err)
	}
}

func TestAListenersOwnersAreThoseThatAConnectionCouldReach(t *testing.T) {
	count := func(at string) int {
		t.Helper()
		owners, err := ListenerOwners(netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range owners {
			if o.UID != ourUID {
				t.Errorf("%s: %+v", at, o)
			}
		}
		return len(owners)
	}
	for listen, reach := range map[string]map[string]int{
		"127.0.0.7:0": {"127.0.0.7": 1, "127.0.0.8": 0, "[::1]": 0},
		"0.0.0.0:0":   {"127.0.0.7": 1, "[::1]": 0},
		"[::1]:0":     {"127.0.0.7": 0, "[::1]": 1},
		"[::]:0":      {"127.0.0.7": 1, "[::1]": 1}, // both, as Go listens
	} {
		network := "tcp"
		if strings.HasPrefix(listen, "0.") {
			network = "tcp4" // else Go takes an IPv6 socket for it
		}
		l, err := net.Listen(network, listen)
		if err != nil {
			parts.Missing(t, err.Error()) // no IPv6 here
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for at, want := range reach {
			if got := count(at + ":" + port); got != want {
				t.Errorf("listening at %s: %d sockets for %s, want %d", listen, got, at, want)
			}
		}
		_ = l.Close()
		if got := count("127.0.0.7:" + port); got != 0 {
			t.Errorf("nobody listens any more, and %d do", got)
		}
	}
}

// A socket of every address is one of this host's: whoever makes one is not the
// application of a container or of another host.
func TestASocketOfEveryAddressIsOneOfThisHostAlone(t *testing.T) {
	for _, c := range []struct{ listen, here, elsewhere string }{{"0.0.0.0:0", "127.200.3.4", "192.0.2.7"}, {"[::]:0", "::1", "2001:db8::7"}, {"[::]:0", "127.0.0.1", "192.0.2.7"}} {
		l, err := net.Listen("tcp", c.listen)
		if err != nil {
			parts.Missing(t, err.Error()) // no IPv6 here
		}
		port := addressOf(l.Addr()).Port()
		if owners, err := ListenerOwners(netip.AddrPortFrom(netip.MustParseAddr(c.here), port)); err != nil || len(owners) != 1 {
			t.Errorf("%s, which is here: %v, %v", c.here, owners, err)
		}
		if owners, err := ListenerOwners(netip.AddrPortFrom(netip.MustParseAddr(c.elsewhere), port)); !errors.Is(err, ErrElsewhere) || len(owners) > 0 {
			t.Errorf("%s, which is not: %v, %v", c.elsewhere, owners, err)
		}
		_ = l.Close()
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add(routeRequest(netip.MustParseAddr("127.0.0.1")))
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 155, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if local, err := parseRoute(b); local && err != nil {
			t.Error("an answer beside an error")
		}
	})
}

// One user listens at more addresses of the port than sockets may listen for one of
// them, and at more than are read of one answer.
func TestSocketsAtOtherAddressesDoNotHideWhoListens(t *testing.T) {
	own, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = own.Close() }()
	port := addressOf(own.Addr()).Port()
	for n := range 12_000 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer func() { _ = unix.Close(fd) }() // nothing was written
			err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 1, byte(n >> 8), byte(n)}}), unix.Listen(fd, 1))
		}
		if err != nil && n > maxListeners {
			t.Logf("%d sockets: %v", n, err)
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	owners, err := ListenerOwners(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if err != nil || len(owners) != 1 {
		t.Errorf("%d owners, %v", len(owners), err)
	}
}

func TestAnAnswerThatNamesNobodyDoesNotCount(t *testing.T) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	good := diagSocket{state: tcpEstablished, local: local, remote: remote, inode: 7, owner: SocketOwner{UID: 1000}}
	if !good.connects(local, remote) {
		t.Fatal("a good answer does not count")
	}
	for name, spoil := range map[string]func(*diagSocket){
		"no inode":        func(s *diagSocket) { s.inode, s.owner.UID = 0, 0 },
		"listening":       func(s *diagSocket) { s.state = tcpListen },
		"time wait":       func(s *diagSocket) { s.state = 6 },
		"closed":          func(s *diagSocket) { s.state = 7 },
		"last ack":        func(s *diagSocket) { s.state = 9 },
		"an unknown user": func(s *diagSocket) { s.owner.UID = overflowUID },
		"no user":         func(s *diagSocket) { s.owner.UID = ^uint32(0) },
		"another source":  func(s *diagSocket) { s.local = remote },
		"another port":    func(s *diagSocket) { s.remote = netip.MustParseAddrPort("127.0.0.1:3") },
	} {
		s := good
		if spoil(&s); s.connects(local, remote) {
			t.Error(name)
		}
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add(diagRequest(unix.AF_INET, unix.NLM_F_REQUEST, 1, netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")))
	f.Add(append([]byte{88, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1}, make([]byte, 70)...))
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		found, _, err := parseDiag(b)
		if err != nil && found != nil {
			t.Error("sockets beside an error")
		}
		if len(found)*sizeDiagMsg > len(b) {
			t.Errorf("%d sockets out of %d bytes", len(found), len(b))
		}
	})
}

func BenchmarkConnectionOwner(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for b.Loop() {
		if _, err := ConnectionOwner(addressOf(c.LocalAddr()), addressOf(c.RemoteAddr())); err != nil {
			b.Fatal(err)
		}
	}
}
