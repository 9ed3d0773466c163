package relay

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"signet.example/ads"
	"signet.example/proxy"
)

func TestServicesAreCompleteWhenEachProxyThatIsToFindThemHasItsRoutes(t *testing.T) {
	r := New(Config{})
	with := func(name string, addresses bool) subscriptionKey {
		return subscriptionKey{proxy.Node("m", name), proxy.Shape{ServiceAddresses: addresses}}
	}
	for _, k := range []subscriptionKey{with("a", true), with("b", true), with("c", false)} {
		r.Configure(k.ref.Name, k.ref, k.shape)
	}
	is := func(want string) {
		t.Helper()
		list, complete, _ := r.Services()
		if got := fmt.Sprint(list, complete); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	is("[] false")
	released := func(k subscriptionKey, services map[string]string) {
		l := &subscription{key: k}
		l.released.Set(&routing{set: &ads.Set{}, services: services})
		r.mu.Lock()
		defer r.mu.Unlock()
		r.subs[k] = l
	}
	released(with("a", true), map[string]string{"db": "127.128.0.1", "web": "127.128.0.2"})
	is("[db web] false")
	released(with("b", true), map[string]string{"db": "127.128.0.1"})
	is("[db web] true")
	r.mu.Lock()
	r.subs[with("b", true)] = &subscription{key: with("b", true)} // it has begun anew
	r.mu.Unlock()
	is("[db web] false")
}

// A port is anybody's who listens first: where that is no proxy, the name leads nowhere.
func TestTheNameOfAServiceLeadsToNobodyElse(t *testing.T) {
	const address = "127.128.0.1"
	for what, at := range map[string]string{"the address": address, "all addresses": "0.0.0.0"} {
		var log bytes.Buffer
		r := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		l, err := net.Listen("tcp4", at+":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port                                                                                                                       //nolint:forcetypeassert // of a listener of tcp
		listener, err := ads.NewResource(ads.ListenerType, proxy.Egress{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port))}.Listener(), nil) //nolint:gosec // a port
		if err != nil {
			t.Fatal(err)
		}
		set, err := ads.NewSet(listener)
		if err != nil {
			t.Fatal(err)
		}
		s := &subscription{}
		s.released.Set(&routing{set: set, services: map[string]string{"db": address}})
		r.subs[subscriptionKey{}] = s
		is := func(want bool) {
			t.Helper()
			if got, known := r.ServiceAddress("db"); !known || got.IsValid() != want || want && got.String() != address {
				t.Errorf("%s: %v, %v", what, got, known)
			}
		}
		is(false)
		is(false)
		if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, fmt.Sprintf("user %d listens at %s:%d", os.Geteuid(), address, port)) {
			t.Errorf("%s: %s", what, said)
		}
		r.tenants.add(uint32(os.Geteuid())) //nolint:gosec // a uid
		is(true)
		delete(r.tenants.users, uint32(os.Geteuid())) //nolint:gosec // a uid
		is(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		is(true) // it refuses connections, at worst
	}
}
