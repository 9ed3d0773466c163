package server

import (
	"net/netip"
	"testing"
)

func TestAnAddressIsAnAgentsIfItConnectsFromThere(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"10.0.0.1", "10.0.0.1"}: true, {"127.0.0.2", "127.0.0.1"}: true, {"::1", "127.0.0.1"}: true,
		{"127.0.0.1", "10.0.0.1"}: false, // everyone's own
		{"10.0.0.2", "10.0.0.1"}:  false, {"10.0.0.1", "127.0.0.1"}: false,
		{"0.0.0.0", "0.0.0.0"}: false, {"::", "::"}: false, {"224.0.0.1", "224.0.0.1"}: false,
	} {
		if got := addressOfAgent(netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])); got != want {
			t.Errorf("%s of an agent at %s: %t", pair[0], pair[1], got)
		}
	}
	if addressOfAgent(netip.Addr{}, netip.Addr{}) {
		t.Error("no address is an address")
	}
}
