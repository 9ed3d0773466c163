package proxy_test

import (
	"net/netip"
	"testing"

	"signet.example/proxy"
)

func TestAnAddressAmongHostsIsNobodysOwnAndNoPlatforms(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.1": true, "203.0.113.7": true, "2001:db8::1": true, "fd00:20::1": true, "64:ff9b::cb00:7107": true, "2002:cb00:7107::1": true, "::ffff:10.0.0.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "0.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "224.0.0.1": false, "169.254.169.254": false,
		"::1": false, "::": false, "::7f00:1": false, "fe80::1": false, "fe80::1%eth0": false, "ff02::1": false, "::ffff:127.0.0.1": false,
		// A9-34: what other translators and tunnels make of the metadata service's address.
		"64:ff9b:1::a9fe:a9fe": false, "64:ff9b:1:a9fe:a9:fe00::": false, "::ffff:0:169.254.169.254": false, "2001:0:a9fe:a9fe::1": false,
		"2001:db8::5efe:a9fe:a9fe": false, "fe80::5efe:a9fe:a9fe": false, "2001:db8::200:5efe:a9fe:a9fe": false, "fec0::1": false, "feff::1": false,
		"fe80::5efe:cb00:7107": false, "fd00:ec2::5efe:cb00:7107": false,
		"2001:db8::5efe:cb00:7107": true, "2001:1::1": false, "2001:200::1": true, "2001:db8::1:5efe:a9fe:a9fe": true, "64:ff9b:2::1": true,
		"fd00:ec2::254": false, "fd00:ec2::23": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "fe80::a9fe:a9fe": false, "169.254.170.2": false, "169.254.0.23": false,
		// What no kind of address says: other clouds' services, beside which are hosts.
		"168.63.129.16": false, "168.63.129.17": true, "64:ff9b::a83f:8110": false, "::ffff:168.63.129.16": false, "2002:a83f:8110::1": false, "2001:db8::5efe:a83f:8110": false,
		"fd20:ce::254": false, "fd20:ce::1": true, "fd00:c1::a9fe:a9fe": false, "fd00:42::42": false, "fd00:42::43": true, "fd00:a9fe:a9fe::1": false,
		"100.100.100.200": false, "100.100.100.201": true, "100.64.0.1": true, "fd00:100::100:200": false,
		"192.0.0.192": false, "192.0.0.8": false, "192.0.2.1": true, "100::1": false, "100:0:0:1::1": true,
	} {
		if got := proxy.AmongHosts(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	if proxy.AmongHosts(netip.Addr{}) {
		t.Error("no address is one")
	}
}
