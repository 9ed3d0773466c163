package xds_test

import (
	"net/netip"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func TestBackendsHaveListenersAtTheirAddressesWhereTheProxyIsAskedForThem(t *testing.T) {
	c := xdstest.Load(t, "testdata/addresses")
	names := func() (out []string) {
		set, err := xds.Build(c.Input, c.Ref(), c.Shape)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Type(ads.ListenerType) {
			out = append(out, r.Name)
		}
		return out
	}
	if got := strings.Join(names(), " "); got != "lds_egress_127.0.0.2_15001 lds_egress_127.133.62.142_8080 lds_egress_127.133.62.142_9090 lds_egress_127.207.14.227_6379 lds_egress_127.9.0.1_6379" {
		t.Errorf("asked for: %s", got)
	}
	c.Shape.ServiceAddresses = false
	if got := strings.Join(names(), " "); got != "lds_egress_127.0.0.2_15001 lds_egress_127.207.14.227_6379" {
		t.Errorf("not asked for: %s", got)
	}
}

func TestAProxyThatListensAtABackendsAddressIsRefusedByName(t *testing.T) {
	c := xdstest.Load(t, "testdata/addresses")
	at := c.Input.Graph.AddressOf(c.Input.Graph.Services("shop")[1].GraphName(), nil)
	c.Shape.Egress = proxy.Egress{AddrPort: netip.AddrPortFrom(at, 8080)}
	if _, err := xds.Build(c.Input, c.Ref(), c.Shape); err == nil || !strings.Contains(err.Error(), at.String()+":8080 is where service orders.shop.internal is to be called, and where this proxy or its application listens") {
		t.Errorf("%v", err)
	}
}

func TestNoProxyListensWhereItsOwnTargetIsFoundByName(t *testing.T) {
	c := xdstest.Load(t, "testdata/namesakes")
	own := c.Input.Graph.AddressesFor(c.Ref(), c.Input.Managed)
	if len(own) != 1 || own["stock.shop.internal"] == "" {
		t.Fatalf("addresses %v", own)
	}
	look := func() (listeners string, byName bool) {
		set, err := xds.Build(c.Input, c.Ref(), c.Shape)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Type(ads.ListenerType) {
			listeners += r.Name + " "
		}
		return listeners, set.Get(ads.EndpointType, "cds_egress_shop_stock_tcp_6379") == nil
	}
	if at, byName := look(); byName || !strings.Contains(at, own["stock.shop.internal"]+"_6379") || strings.Contains(at, "_8080") {
		t.Errorf("hosted: looked for by name %t, listeners %s", byName, at)
	}
	c.Input.Managed = nil
	if at, byName := look(); !byName || strings.Contains(at, own["stock.shop.internal"]+"_6379") {
		t.Errorf("hosted by nobody: looked for by name %t, listeners %s", byName, at)
	}
}

func TestAListenerWithoutABoundOfItsOwnHasThatOfItsProxy(t *testing.T) {
	c := xdstest.Load(t, "testdata/addresses")
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Type(ads.ListenerType) {
		m, err := invariants.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		// The bootstrap has a bound by this name alone.
		if got, want := m.(*listenerv3.Listener).GetIgnoreGlobalConnLimit(), r.Name == c.Shape.Egress.Listener(); got != want {
			t.Errorf("%s: ignores the proxy's bound: %t, want %t", r.Name, got, want)
		}
	}
}
