package relay

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/proxy"
)

func TestAnAddressAndPortBelongToOneProxy(t *testing.T) {
	at := netip.MustParseAddrPort
	var k addresses
	steps := []struct {
		proxy, want string
		at          []netip.AddrPort
	}{
		{"a", "", []netip.AddrPort{at("127.0.0.2:8080"), at("127.0.0.2:15001")}},
		{"a", "", []netip.AddrPort{at("127.0.0.2:8080")}}, // its own
		{"b", "its address is taken: proxy a listens on 127.0.0.2:8080", []netip.AddrPort{at("127.0.0.2:9090"), at("127.0.0.2:8080")}},
		{"c", "", []netip.AddrPort{at("127.0.0.2:9090")}}, // what b did not get
		{"d", "", []netip.AddrPort{at("127.0.0.3:8080")}},
		{"e", "listens on", []netip.AddrPort{at("0.0.0.0:9090")}},
	}
	for _, s := range steps {
		err := k.claim(s.proxy, s.at)
		if (err == nil) != (s.want == "") || err != nil && !strings.Contains(err.Error(), s.want) {
			t.Errorf("%s: %v", s.proxy, err)
		}
	}
	k.release("a")
	if err := k.claim("b", []netip.AddrPort{at("127.0.0.2:8080")}); err != nil {
		t.Errorf("after the other ended: %v", err)
	}
}

func TestEveryListenerOfASetCountsAsTaken(t *testing.T) {
	var rs []*ads.Resource
	for name, port := range map[string]uint32{"lds_ingress_8080": 8080, "lds_egress_15001": 15001} {
		r, err := ads.NewResource(ads.ListenerType, name, &listenerv3.Listener{Name: name, Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "127.0.0.2", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	if got := needed(set, proxy.Shape{}); len(got) != 2 || got[0].Addr() != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("%v", got)
	}
}

func TestAProxyDoesNotRunWithoutAnAddressToWhichConnectionsAreRedirected(t *testing.T) {
	at := func(text string) *corev3.Address {
		a := netip.MustParseAddrPort(text)
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		}}}
	}
	sh := proxy.Shape{App: "127.0.0.1", ServiceAddresses: true, Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort("127.0.0.1:15001")}}
	var rs []*ads.Resource
	for name, at := range map[string][]*corev3.Address{
		proxy.CapturePrefix + "0.0.0.0_15000":               {at("0.0.0.0:15000"), at("[::]:15000")},
		sh.Egress.Listener():                                {at("127.0.0.1:15001"), at("[::1]:15001")},
		proxy.EgressListenerPrefix + "127.128.0.7_8080":     {at("127.128.0.7:8080")},
		proxy.EgressListenerPrefix + "unix:/run/x/out.sock": {{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x/out.sock"}}}},
	} {
		l := &listenerv3.Listener{Name: name, Address: at[0]}
		for _, more := range at[1:] {
			l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: more})
		}
		r, err := ads.NewResource(ads.ListenerType, name, l)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{"127.0.0.3:15000", "[::1]:15000", "127.0.0.1:15001", "[::1]:15001"} {
		var k addresses
		if err := k.claim("another", []netip.AddrPort{netip.MustParseAddrPort(taken)}); err != nil {
			t.Fatal(err)
		}
		if err := k.claim("one", needed(set, sh)); err == nil || !strings.Contains(err.Error(), "proxy another listens on "+taken) {
			t.Errorf("%s is another's: %v", taken, err)
		}
		_, without, err := k.granted("one", subscriptionKey{shape: sh}, set, time.Second)
		if err != nil || len(without) != 1 {
			t.Errorf("%s is another's: without %v, %v", taken, without, err)
		}
	}
}

func TestOfSeveralTakenAddressesOneIsToldAlways(t *testing.T) {
	at := netip.MustParseAddrPort
	var k addresses
	all := []netip.AddrPort{at("127.0.0.2:8080"), at("127.0.0.2:8081"), at("127.0.0.2:8082"), at("127.0.0.2:8083")}
	if err := k.claim("a", all); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := k.claim("b", all); err == nil || !strings.HasSuffix(err.Error(), "listens on 127.0.0.2:8080") {
			t.Fatal(err)
		}
	}
}

// inboundAt is a set with a listener for each address that others call.
func inboundAt(t *testing.T, at ...string) *ads.Set {
	t.Helper()
	var rs []*ads.Resource
	for _, r := range listenersAt(t, at...).Type(ads.ListenerType) {
		rs = append(rs, &ads.Resource{Type: r.Type, Name: ingressPrefix + r.Name, Version: r.Version, Body: r.Body})
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Else each would serve the other's calls, and the application of the one could speak as the other.
func TestTwoVirtualNodesHaveNoApplicationAtOnePlace(t *testing.T) {
	var k addresses
	view := func(node, app string) *View {
		v := newView(&subscription{key: subscriptionKey{ref: proxy.Node("shop", node), shape: proxy.Shape{App: app}}}, svids.Name{Entry: node}, nil, nil)
		v.addresses, v.drain, v.changed = &k, time.Second, func() {}
		return v
	}
	put := func(v *View, at ...string) {
		t.Helper()
		if err := v.put(inboundAt(t, at...), ""); err != nil {
			t.Fatal(err)
		}
	}
	green, replica, blue, color := view("green", "127.0.0.1"), view("green", "127.0.0.1"), view("blue", "127.0.0.1"), view("color", "127.0.0.1")
	put(green, "127.0.0.2:8080")
	put(replica, "127.0.0.3:8080")
	put(blue, "127.0.0.4:9090")
	put(color, "127.0.0.5:8080")
	for name, v := range map[string]*View{"green": green, "replica": replica, "blue": blue} {
		if err := v.claim(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const why = "its application's address is taken: proxy green, which runs for mesh/shop/virtualNode/green, has its own at 127.0.0.1:8080, too: give one of them another app, or its node another port"
	if err := color.claim("color"); err == nil || err.Error() != why {
		t.Errorf("color: %v", err)
	}
	put(blue, "127.0.0.4:9090", "127.0.0.4:8080") // of a later apply
	if got := blue.LeftOut(); !slices.Equal(got, []LeftOut{{"lds_ingress_l1", why}}) || len(ingressPorts(blue.published.Load())) != 1 {
		t.Errorf("blue has %v, left out: %q", ingressPorts(blue.published.Load()), got)
	}
	green.unclaim()
	if err := color.claim("color"); err == nil || !strings.Contains(err.Error(), "proxy replica") {
		t.Errorf("color, while a replica serves: %v", err)
	}
	replica.unclaim()
	put(blue, "127.0.0.4:9090")
	if err := color.claim("color"); err != nil {
		t.Errorf("color, when nobody else is there: %v", err)
	}
	elsewhere := view("elsewhere", "127.0.0.9")
	put(elsewhere, "127.0.0.6:8080")
	if err := elsewhere.claim("elsewhere"); err != nil {
		t.Errorf("at another address: %v", err)
	}
}

// listenersAt is a set with a listener for each address, named l0, l1, ….
func listenersAt(t *testing.T, at ...string) *ads.Set {
	t.Helper()
	var rs []*ads.Resource
	for i, text := range at {
		a := netip.MustParseAddrPort(text)
		name := "l" + strconv.Itoa(i)
		r, err := ads.NewResource(ads.ListenerType, name, &listenerv3.Listener{Name: name, Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAListenerOfALaterApplyIsLeftOutWhereAnotherProxyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k addresses
		told := 0
		view := func(node string) *View {
			v := newView(&subscription{key: subscriptionKey{ref: proxy.Node("shop", node)}}, svids.Name{Entry: node}, nil, nil)
			v.addresses, v.drain, v.changed = &k, 10*time.Second, func() { told++ }
			return v
		}
		web, orders := view("web"), view("orders")
		put := func(v *View, at ...string) {
			t.Helper()
			if err := v.put(listenersAt(t, at...), ""); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(v *View, left []LeftOut, at ...string) {
			t.Helper()
			var want []netip.AddrPort
			for _, text := range at {
				want = append(want, netip.MustParseAddrPort(text))
			}
			if got := needed(v.published.Load(), proxy.Shape{}); !slices.Equal(got, want) {
				t.Errorf("%s listens on %v, want %v", v.sub.key.ref.Name, got, want)
			}
			if got := v.LeftOut(); !slices.Equal(got, left) {
				t.Errorf("%s: %v is left out, want %v", v.sub.key.ref.Name, got, left)
			}
		}
		put(web, "127.0.0.2:8080")
		put(orders, "127.0.0.2:9090")
		for _, v := range []*View{web, orders} {
			if err := v.claim(v.sub.key.ref.Name); err != nil {
				t.Fatal(err)
			}
		}
		why := []LeftOut{{"l1", "its address is taken: proxy web listens on 127.0.0.2:8080"}}
		put(orders, "127.0.0.2:9090", "127.0.0.2:8080")
		expect(orders, why, "127.0.0.2:9090")
		put(orders, "127.0.0.2:9090", "127.0.0.2:8080") // as each second
		expect(orders, why, "127.0.0.2:9090")
		if told != 1 {
			t.Errorf("told %d times", told)
		}
		put(web, "127.0.0.2:8081")
		put(orders, "127.0.0.2:9090", "127.0.0.2:8080") // while the other drains
		expect(orders, why, "127.0.0.2:9090")
		time.Sleep(11 * time.Second)
		put(orders, "127.0.0.2:9090", "127.0.0.2:8080")
		expect(orders, nil, "127.0.0.2:9090", "127.0.0.2:8080")

		// An Envoy that ends comes back with what there is, and does not wait for the rest.
		orders.unclaim()
		put(web, "127.0.0.2:8080")
		expect(web, nil, "127.0.0.2:8080")
		if err := orders.claim("orders"); err != nil {
			t.Fatal(err)
		}
		expect(orders, why, "127.0.0.2:9090")
		// A proxy that is gone holds nothing, whatever its view still gets.
		web.unclaim()
		put(web, "127.0.0.2:8080", "127.0.0.2:7070")
		put(orders, "127.0.0.2:9090", "127.0.0.2:8080", "127.0.0.2:7070")
		expect(orders, nil, "127.0.0.2:9090", "127.0.0.2:8080", "127.0.0.2:7070")
	})
}

func TestAProxyRunsWithoutTheServicesAddressesThatAnotherOneHas(t *testing.T) {
	var k addresses
	view := func(name, own string) *View {
		sh := proxy.Shape{App: "127.0.0.1", ServiceAddresses: true, Egress: proxy.Egress{AddrPort: netip.MustParseAddrPort(own)}}
		v := newView(&subscription{key: subscriptionKey{ref: proxy.Node("shop", name), shape: sh}}, svids.Name{Entry: name}, nil, nil)
		v.addresses, v.drain, v.changed = &k, time.Second, func() {}
		var rs []*ads.Resource
		for i, r := range listenersAt(t, own, "127.128.0.7:8080").Type(ads.ListenerType) {
			rs = append(rs, &ads.Resource{Type: r.Type, Name: []string{sh.Egress.Listener(), "lds_egress_127.128.0.7_8080"}[i], Version: r.Version, Body: r.Body})
		}
		set, err := ads.NewSet(rs...)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.put(set, ""); err != nil {
			t.Fatal(err)
		}
		return v
	}
	web, batch, twin := view("web", "127.0.0.2:15001"), view("batch", "127.0.0.3:15001"), view("twin", "127.0.0.2:15001")
	if err := web.claim("web"); err != nil || len(web.LeftOut()) != 0 {
		t.Errorf("the first: %v, %v", err, web.LeftOut())
	}
	const why = "its address is taken: proxy web listens on 127.128.0.7:8080"
	if err := batch.claim("batch"); err != nil || !slices.Equal(batch.LeftOut(), []LeftOut{{"lds_egress_127.128.0.7_8080", why}}) {
		t.Errorf("the second: %v, %v", err, batch.LeftOut())
	}
	if err := twin.claim("twin"); err == nil {
		t.Error("a proxy runs without its way out")
	}
	web.unclaim()
	if err := batch.putClaimed(); err != nil || len(batch.LeftOut()) != 0 {
		t.Errorf("after the first has ended: %v, %v", err, batch.LeftOut())
	}
}
