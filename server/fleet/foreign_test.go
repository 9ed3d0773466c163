package fleet

import (
	"fmt"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/proxy"
)

// An agent that has just begun does not know the proxies that others started until these
// have come back to it. They go on meanwhile, and are called where there is no other.
func TestForeignProxiesStayUnhealthyUntilTheyCanHaveComeBackToTheirAgent(t *testing.T) {
	e := registryOf(t, 0, time.Now)
	peer := hostile("a")
	report := func(returning bool, proxies ...*api.ProxyStatus) {
		t.Helper()
		if unserved := e.Report(peer, &api.Report{Proxies: proxies, Returning: returning}); len(unserved) > 0 {
			t.Errorf("not served: %v", unserved)
		}
	}
	of := func(name string) *api.ProxyStatus {
		p := reportOf(1, true).GetProxies()[0]
		p.Name, p.Foreign = name, true
		return p
	}
	look := func() *Endpoint {
		list := e.Snapshot().Of(proxy.Node("m", "1"))
		if len(list) != 1 {
			return nil
		}
		return list[0]
	}
	report(false, of("web@127.0.0.1"))
	e.Left("a")
	report(true)
	if n := look(); n == nil || n.Healthy || !n.Gone.IsZero() {
		t.Errorf("its agent began anew: %+v", n)
	}
	report(true, of("web@127.0.0.1"))
	if n := look(); n == nil || !n.Healthy {
		t.Errorf("it came back: %+v", n)
	}
	report(true)
	report(true, of("other@127.0.0.1")) // by another Binding, at its place
	if n := look(); n == nil || n.Proxy != "other@127.0.0.1" || !n.Healthy {
		t.Errorf("another one is at its place: %+v", n)
	}
	report(false)
	if n := look(); n != nil {
		t.Errorf("it did not come back: %+v", n)
	}
	own := of("web")
	own.Foreign = false
	report(false, own)
	report(true)
	if n := look(); n != nil {
		t.Errorf("one that its agent starts is waited for: %+v", n)
	}
	for i := range 20 { // by a lie, each time at another place
		p := of(fmt.Sprint("web@", i))
		p.Ports = []uint32{uint32(100 + i)}
		report(true, p)
	}
	if list := e.Snapshot().Of(proxy.Node("m", "1")); len(list) > mostOfOne {
		t.Errorf("%d endpoints of an agent that begins for ever", len(list))
	}
}
