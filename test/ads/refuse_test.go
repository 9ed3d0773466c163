package ads_test

import (
	"net"
	"strconv"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/ads"
	"signet.example/test/envoytest"
)

// freePort is a port that was free a moment ago.
func freePort(t testing.TB) uint32 {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nothing is lost
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// bound binds a listener to a port.
func bound(port uint32) func(*listenerv3.Listener) {
	return func(l *listenerv3.Listener) { l.Address = socketAddress("127.0.0.1", port) }
}

// badRoutes are refused by Envoy: a regular expression that does not compile.
func badRoutes(t testing.TB, name string) *ads.Resource {
	t.Helper()
	return must(t, ads.RouteType, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{
		{Name: "a", Domains: []string{"x"}}, {Name: "a", Domains: []string{"x"}}, // Envoy wants domains unique
	}})
}

func TestRefusedRoutesKeepTheOldOnesAndTheirCluster(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b := envoytest.StartBackend(t, "b", 0)
		l := listener(t, "l", "r", nil)
		w.publish(concat(cluster(t, "old", b, nil), []*ads.Resource{l, routes(t, "r", "old")})...)
		w.envoy.WaitReady(t)
		run := load(w, w.url("l"))
		pause()
		bad := badRoutes(t, "r")
		w.publish(concat(cluster(t, "new", b, nil), []*ads.Resource{l, bad})...)
		w.envoy.Wait(t, "the routes are refused", func() bool { return len(w.view.Rejected()) == 1 })
		if got := w.view.Rejected()[0]; got.Name != "r" || got.Version != bad.Version || got.Message == "" {
			t.Errorf("rejected %+v", got)
		}
		pause()
		if n := w.envoy.Stats(t, "cluster.old.upstream_rq_total"); len(n) == 0 {
			t.Error("the cluster of the routes in use is gone")
		}
		w.publish(concat(cluster(t, "new", b, nil), []*ads.Resource{l, routes(t, "r", "new")})...)
		w.settled()
		spotless(w, run)
	})
}

func TestRefusedListenerLeavesTheOthers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b := envoytest.StartBackend(t, "b", 0)
		rest := concat(cluster(t, "c", b, nil), []*ads.Resource{routes(t, "r", "c")})
		bad := listener(t, "bad", "r", func(l *listenerv3.Listener) { l.Address = socketAddress("not an address", 1) })
		w.publish(concat(rest, []*ads.Resource{bad, listener(t, "good", "r", nil), listener(t, "good2", "r", nil)})...)
		w.envoy.Wait(t, "the listener is refused", func() bool { return len(w.view.Rejected()) == 1 })
		if got := w.view.Rejected()[0]; got.Name != "bad" {
			t.Errorf("rejected %+v", got)
		}
		w.envoy.Wait(t, "the others serve", func() bool {
			a := w.envoy.Listeners(t)
			return a["good"] != "" && a["good2"] != ""
		})
		run := load(w, w.url("good"))
		pause()
		spotless(w, run)
	})
}
