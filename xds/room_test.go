package xds_test

import (
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"

	"signet.example/ads"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func TestSharesOfOutboundListenersLeaveAQuarterToTheWaysIn(t *testing.T) {
	for _, connections := range []uint32{128, 896, 3_622, 16_255, proxy.DefaultConnections} {
		for n := 1; n <= 200; n++ {
			share := xds.ShareOf(connections, n)
			switch {
			case share < 1, n > 8 && share < min(64, uint64(connections)*3/32):
				t.Errorf("%d of %d connections for each of %d listeners", share, connections, n)
			case share > 64 || n <= 8: // else each has a few, whatever that makes together
				if all := share * uint64(n); all > uint64(connections)*3/4 {
					t.Errorf("%d listeners have %d of %d connections", n, all, connections)
				}
			}
		}
	}
	if got := xds.ShareOf(proxy.DefaultConnections, 3); got != 2343 { // docs/CONFIGURATION.md says so
		t.Errorf("one of three listeners has %d connections", got)
	}
}

func TestEachListenerOfTheApplicationsCallsHasItsShareOfConnections(t *testing.T) {
	c := xdstest.Load(t, "testdata/addresses")
	most := func() map[string]uint64 {
		set, err := xds.Build(c.Input, c.Ref(), c.Shape)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{}
		for _, r := range set.Type(ads.ListenerType) {
			l := decodeAs[*listenerv3.Listener](t, r)
			var limit limitv3.ConnectionLimit
			if f := l.GetFilterChains()[0].GetFilters()[0]; f.GetTypedConfig().UnmarshalTo(&limit) == nil {
				got[r.Name] = limit.GetMaxConnections().GetValue()
			}
			if own := r.Name == c.Shape.Egress.Listener(); own == (got[r.Name] != 0) {
				t.Errorf("%s: %d connections", r.Name, got[r.Name])
			}
		}
		return got
	}
	const at = "lds_egress_127.133.62.142_8080"
	if got := most()[at]; got != 2343 {
		t.Errorf("where nothing is said of the host's files: %d", got)
	}
	c.Shape.Connections = 896
	if got := most()[at]; got != 84 {
		t.Errorf("on a host of 4096 files: %d", got)
	}
}
