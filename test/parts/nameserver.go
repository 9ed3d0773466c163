package parts

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Nameserver answers queries for one name's addresses, by UDP at an address of this host, until the test
// ends. For each, answer gives the address, which is good for a second; the zero one says that there is
// none, and false says nothing at all. It returns where it listens.
func Nameserver(t testing.TB, at netip.AddrPort, answer func(name string, q dnsmessage.Type) (netip.Addr, bool)) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if out := answered(buf[:size], answer); out != nil {
				_, _ = conn.WriteToUDPAddrPort(out, from) // who asked asks again
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); wg.Wait() })
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// answered is the answer to a query, nil for none.
func answered(query []byte, answer func(string, dnsmessage.Type) (netip.Addr, bool)) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	addr, ok := answer(q.Name.String(), q.Type)
	if !ok {
		return nil
	}
	m.Response, m.Additionals = true, nil
	h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	switch {
	case q.Type == dnsmessage.TypeA && addr.Is4():
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}}}
	case q.Type == dnsmessage.TypeAAAA && addr.Is6():
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}
