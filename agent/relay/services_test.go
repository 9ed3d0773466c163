package relay

import (
	"fmt"
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
