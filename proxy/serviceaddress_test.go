package proxy_test

import (
	"net/netip"
	"strings"
	"testing"

	"signet.example/proxy"
)

// Addresses are in zones and caches of others: none may ever become another one.
func TestTheAddressOfAServiceStaysWhatItIs(t *testing.T) {
	for _, c := range []struct{ mesh, service, within, want string }{
		{"shop", "orders.shop.internal", proxy.DefaultServiceRange, "127.133.62.142"},
		{"shop", "Orders.shop.INTERNAL", proxy.DefaultServiceRange, "127.133.62.142"},
		{"shop", "payments.shop.internal", proxy.DefaultServiceRange, "127.177.45.172"},
		{"other", "orders.shop.internal", proxy.DefaultServiceRange, "127.171.117.233"},
		{"shop", "orders.shop.internal", "127.9.0.0/16", "127.9.62.142"},
		{"shop", "orders.shop.internal", "127.9.8.0/24", "127.9.8.142"},
	} {
		if got := proxy.ServiceAddress(c.mesh, c.service, netip.MustParsePrefix(c.within)); got.String() != c.want {
			t.Errorf("%s of %s in %s: %s, want %s", c.service, c.mesh, c.within, got, c.want)
		}
	}
}

func TestTheAddressesOfServicesLieInTheirRangeAndAtNoneOfItsEnds(t *testing.T) {
	within := netip.MustParsePrefix(proxy.DefaultServiceRange)
	seen := map[netip.Addr]bool{}
	for i := range 4000 {
		a := proxy.ServiceAddress("m", strings.Repeat("s", 1+i%97)+string(rune('a'+i%26))+strings.Repeat("t", i/97), within)
		seen[a] = true
		if last := a.As4()[3]; !within.Contains(a) || last == 0 || last == 255 {
			t.Fatal(a)
		}
	}
	if len(seen) < 3900 {
		t.Errorf("%d addresses of 4000 services", len(seen))
	}
}

func TestARangeOfServicesIsOneThatNoOtherHostReachesAndNothingElseHas(t *testing.T) {
	for text, words := range map[string]string{
		proxy.DefaultServiceRange: "", "127.9.8.0/24": "", "127.64.0.0/10": "",
		"127.9.8.7/24": "did you mean 127.9.8.0/24", "127.9.8.0/25": "256 addresses", "10.0.0.0/16": "other hosts", "0.0.0.0/0": "other hosts", "127.0.0.0/8": "overlaps",
		"127.0.3.0/24": "overlaps", "127.200.0.0/16": "overlaps", "::1/128": "other hosts", "127.128.0.0": "want a range", "": "want a range",
	} {
		_, err := proxy.ParseServiceRange(text)
		if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
	for text, words := range map[string]string{
		"127.9.8.7": "", "127.0.0.1": "services of their own", "127.193.0.1": "ways out", "10.0.0.1": "other hosts", "::1": "other hosts", "x": "want a loopback address", "::ffff:127.9.8.7": "other hosts",
	} {
		_, err := proxy.ParseServiceAddress(text)
		if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
}

func TestServiceAddressesAreBesideAWayOutThatIsAnAddress(t *testing.T) {
	s := aShape
	s.ServiceAddresses = true
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	s.Egress = proxy.Egress{Socket: "/run/out/web.sock", Mode: 0o600}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "service_addresses: egress is unix:/run/out/web.sock, whose mode says who may call out") {
		t.Error(err)
	}
	gateway := proxy.Shape{Bind: "127.0.0.1", AuthzSocket: "/a", WayoutSocket: "/w", Alone: true, ServiceAddresses: true}
	if err := gateway.Validate(); err == nil || !strings.Contains(err.Error(), "no application behind a virtual gateway") {
		t.Error(err)
	}
}
