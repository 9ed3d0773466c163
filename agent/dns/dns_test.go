package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask1(t testing.TB, id uint16, name string, of dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: of, Class: dnsmessage.ClassINET}},
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func known(name string) (netip.Addr, bool) {
	switch name {
	case "orders.shop.internal":
		return netip.MustParseAddr("127.128.0.7"), true
	case "two.shop.internal":
		return netip.Addr{}, true
	}
	return netip.Addr{}, false
}

func TestAServiceHasItsAddressAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name string
		of   dnsmessage.Type
		want string
	}{
		{"orders.shop.internal.", dnsmessage.TypeA, "127.128.0.7"},
		{"Orders.SHOP.internal.", dnsmessage.TypeA, "127.128.0.7"},
		{"orders.shop.internal.", dnsmessage.TypeAAAA, ""},
		{"orders.shop.internal.", dnsmessage.TypeTXT, ""},
	} {
		_, reply, done := answer(ask1(t, 7, c.name, c.of), known)
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil || !done {
			t.Fatal(c, done, err)
		}
		var got string
		for _, a := range m.Answers {
			if a.Header.TTL != ttl {
				t.Errorf("%v: kept for %d s", c, a.Header.TTL)
			}
			got += netip.AddrFrom4(a.Body.(*dnsmessage.AResource).A).String()
		}
		if m.ID != 7 || !m.Response || m.RCode != dnsmessage.RCodeSuccess || !m.RecursionDesired || got != c.want || len(m.Questions) != 1 || m.Questions[0].Name.String() != c.name {
			t.Errorf("%v: %+v", c, m)
		}
	}
}

func TestAServiceOfTwoMeshesIsAtNoneOfTheirAddresses(t *testing.T) {
	_, reply, done := answer(ask1(t, 7, "two.shop.internal.", dnsmessage.TypeA), known)
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil || !done || m.RCode != dnsmessage.RCodeServerFailure || len(m.Questions) != 1 || len(m.Answers) != 0 {
		t.Errorf("%v %v %+v", done, err, m)
	}
}

func TestWhatIsNoQuestionIsNotAnsweredAsOne(t *testing.T) {
	good := ask1(t, 7, "orders.shop.internal.", dnsmessage.TypeA)
	changed := func(at int, b byte) []byte {
		msg := bytes.Clone(good)
		msg[at] = b
		return msg
	}
	for what, c := range map[string]struct {
		msg  []byte
		code int // -1: nothing is said
	}{
		"an answer":     {changed(2, good[2]|0x80), -1},
		"half a header": {good[:11], -1}, "nothing": {nil, -1},
		"two questions": {changed(5, 2), int(dnsmessage.RCodeFormatError)}, "none": {changed(5, 0), int(dnsmessage.RCodeFormatError)},
		"half a question":    {good[:len(good)-3], int(dnsmessage.RCodeFormatError)},
		"an update":          {changed(2, good[2]|5<<3), int(dnsmessage.RCodeNotImplemented)},
		"a name of nobody's": {ask1(t, 7, "else.example.", dnsmessage.TypeA), -2},
	} {
		_, reply, done := answer(c.msg, known)
		switch {
		case c.code == -2:
			if done || reply != nil {
				t.Errorf("%s: %x", what, reply)
			}
		case c.code == -1:
			if !done || reply != nil {
				t.Errorf("%s: %v %x", what, done, reply)
			}
		case !done || len(reply) != headerLength || int(reply[3]&0xf) != c.code || reply[2]&0x80 == 0 || !bytes.Equal(reply[:2], c.msg[:2]) || !bytes.Equal(reply[4:], make([]byte, 8)):
			t.Errorf("%s: %v %x, want code %d", what, done, reply, c.code)
		}
	}
}

// fake is a name server that answers by hand.
func fake(t *testing.T, respond func(network string, msg []byte, send func([]byte))) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	t.Cleanup(func() { _, _ = l.Close(), u.Close(); <-done; <-done })
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			respond("udp", bytes.Clone(buf[:n]), func(m []byte) { _, _ = u.WriteTo(m, from) })
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if msg, err := readTCP(conn, 1<<16-1); err == nil {
				respond("tcp", msg, func(m []byte) { _ = writeTCP(conn, m) })
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// says is the answer to a question with one address.
func says(t *testing.T, msg []byte, address string) []byte {
	t.Helper()
	q, err := read(msg)
	if err != nil {
		t.Error(err)
	}
	return q.with(netip.MustParseAddr(address))
}

func started(t *testing.T, upstreams ...string) *Server {
	t.Helper()
	s, err := Listen(t.Context(), Config{Listen: "127.0.0.1:0", Upstreams: upstreams})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx, known, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// lookup asks as applications do.
func lookup(t *testing.T, s *Server, network, name string) ([]netip.Addr, error) {
	t.Helper()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Addr().String())
	}}
	return r.LookupNetIP(t.Context(), "ip4", name)
}

func TestServicesAreAnsweredAndAllElseIsAskedForByBothProtocols(t *testing.T) {
	up := fake(t, func(_ string, msg []byte, send func([]byte)) { send(says(t, msg, "192.0.2.7")) })
	s := started(t, up)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{"orders.shop.internal": "127.128.0.7", "else.example": "192.0.2.7"} {
			got, err := lookup(t, s, network, name)
			if err != nil || len(got) != 1 || got[0].String() != want {
				t.Errorf("%s by %s: %v, %v", name, network, got, err)
			}
		}
	}
}

// Whoever can send to the server's port does not know the id and the port of its question.
func TestNoAnswerIsTakenThatIsNotToTheQuestion(t *testing.T) {
	var ids [3]atomic.Uint32
	var n atomic.Int32
	up := fake(t, func(_ string, msg []byte, send func([]byte)) {
		if i := n.Add(1); i <= 3 {
			ids[i-1].Store(uint32(binary.BigEndian.Uint16(msg)))
		}
		other := says(t, msg, "203.0.113.1")
		other[1]++ // another id
		send(other)
		send(says(t, ask1(t, binary.BigEndian.Uint16(msg), "evil.example.", dnsmessage.TypeA), "203.0.113.2"))
		send(msg) // a question
		send([]byte{1, 2})
		send(says(t, msg, "192.0.2.7"))
	})
	s := started(t, up)
	for range 3 {
		q, _, _ := answer(ask1(t, 7, "else.example.", dnsmessage.TypeA), known)
		reply := s.others(t.Context(), "udp", q, ask1(t, 7, "else.example.", dnsmessage.TypeA))
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil || m.ID != 7 || len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.AResource).A != [4]byte{192, 0, 2, 7} {
			t.Fatalf("%v %+v", err, m)
		}
	}
	if ids[0].Load() == ids[1].Load() && ids[1].Load() == ids[2].Load() {
		t.Error("all questions had one id")
	}
}

func TestTheNextNameServerIsAsked(t *testing.T) {
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := dead.LocalAddr().String()
	if err := dead.Close(); err != nil { // refused at once
		t.Fatal(err)
	}
	s := started(t, at, fake(t, func(_ string, msg []byte, send func([]byte)) { send(says(t, msg, "192.0.2.8")) }))
	if got, err := lookup(t, s, "udp", "else.example"); err != nil || len(got) != 1 || got[0].String() != "192.0.2.8" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSilentNamesAndConnectionsKeepNobodyOut(t *testing.T) {
	s, err := Listen(t.Context(), Config{Listen: "127.0.0.1:0", Upstreams: []string{fake(t, func(_ string, msg []byte, send func([]byte)) {
		if q, err := read(msg); err == nil && !strings.HasPrefix(q.Name.String(), "silent") {
			send(says(t, msg, "192.0.2.8"))
		}
	})}})
	if err != nil {
		t.Fatal(err)
	}
	s.underWay.most, s.conns.most = 2, 2
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx, known, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-ended })
	for range 8 {
		c, err := net.Dial("udp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write(ask1(t, 7, "silent.example.", dnsmessage.TypeA)); err != nil {
			t.Fatal(err)
		}
		idle, err := net.Dial("tcp", s.Addr().String()) // says nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = idle.Close() })
	}
	for _, network := range []string{"udp", "tcp"} {
		if got, err := lookup(t, s, network, "else.example"); err != nil || len(got) != 1 || got[0].String() != "192.0.2.8" {
			t.Errorf("by %s: %v, %v", network, got, err)
		}
	}
}

func TestItIsForThisHostAndAsksSomebodyElse(t *testing.T) {
	for _, c := range []struct {
		c     Config
		field string
	}{
		{Config{}, ""},
		{Config{Listen: "127.0.0.1:53"}, ""},
		{Config{Listen: "[::1]:53", Upstreams: []string{"10.0.0.2", "[fd00::2]:5353", "fd00::3"}}, ""},
		{Config{Listen: "10.0.0.1:53"}, "listen"},
		{Config{Listen: "0.0.0.0:53"}, "listen"},
		{Config{Listen: "127.0.0.1"}, "listen"},
		{Config{Listen: "127.0.0.1:0"}, "listen"},
		{Config{Upstreams: []string{"10.0.0.2"}}, "upstreams"},
		{Config{Listen: "127.0.0.1:53", Upstreams: []string{"127.0.0.1"}}, "upstreams"},
		{Config{Listen: "127.0.0.1:53", Upstreams: []string{"::ffff:127.0.0.1"}}, "upstreams"},
		{Config{Listen: "127.0.0.1:53", Upstreams: []string{"0.0.0.0:53"}}, "upstreams"},
		{Config{Listen: "[::1]:53", Upstreams: []string{"::1%lo"}}, "upstreams"},
		{Config{Listen: "[::1]:53", Upstreams: []string{"::"}}, "upstreams"},
		{Config{Listen: "127.0.0.2:53", Upstreams: []string{"0.0.0.0"}}, ""},
		{Config{Listen: "127.0.0.1:53", Upstreams: []string{"ns.example"}}, "upstreams"},
		{Config{Listen: "127.0.0.1:53", Upstreams: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}}, "upstreams"},
	} {
		if field, err := c.c.Validate(); field != c.field || (err == nil) != (c.field == "") {
			t.Errorf("%+v: %q %v", c.c, field, err)
		}
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string]string{
		"search shop.internal\nnameserver 127.0.0.1\nnameserver 10.0.0.2\n#nameserver 10.0.0.3\nnameserver fd00::2\n": "[10.0.0.2:53 [fd00::2]:53]",
		"nameserver 127.0.0.1\n": "[]",
		"nameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\nnameserver ::ffff:10.0.0.2\n": "[10.0.0.2:53]",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ups, err := Config{Listen: "127.0.0.1:53"}.upstreams(file)
		if got := netipText(ups); got != want || (err == nil) != (want != "[]") {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func netipText(list []netip.AddrPort) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return "[" + strings.Join(out, " ") + "]"
}

func FuzzAnswer(f *testing.F) {
	f.Add(ask1(f, 7, "orders.shop.internal.", dnsmessage.TypeA))
	f.Add(ask1(f, 7, "else.example.", dnsmessage.TypeAAAA))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, msg []byte) {
		q, reply, done := answer(msg, known)
		if reply != nil && (!done || len(reply) < headerLength || reply[2]&0x80 == 0 || !bytes.Equal(reply[:2], msg[:2])) {
			t.Errorf("%x: %x", msg, reply)
		}
		_ = answers(msg, msg, q)
	})
}
