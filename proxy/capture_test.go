package proxy_test

import (
	"net/netip"
	"testing"

	"signet.example/proxy"
)

func TestAConnectionIsLedToTheWayOutOfItsFamily(t *testing.T) {
	out := proxy.Capture{Egress: 15001, Ingress: 15000}
	for _, c := range []struct {
		of   proxy.Capture
		to   string
		want string
	}{
		{out, "203.0.113.7", "127.0.0.1:15001"},
		{out, "2001:db8::7", "[::1]:15001"},
		{proxy.Capture{Egress: 9001}, "203.0.113.7", "127.0.0.1:9001"},
		{proxy.Capture{Ingress: 15000}, "203.0.113.7", ""},
		{proxy.Capture{Ingress: 15000}, "2001:db8::7", ""},
		{proxy.Capture{}, "203.0.113.7", ""},
	} {
		at, want := c.of.LedTo(netip.MustParseAddr(c.to)), netip.AddrPort{}
		if c.want != "" {
			want = netip.MustParseAddrPort(c.want)
		}
		if at != want {
			t.Errorf("%s by %+v is led to %s, want %q", c.to, c.of, at, c.want)
		}
	}
}
