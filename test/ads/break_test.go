package ads_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/test/envoytest"
	"signet.example/test/parts"
)

// times is how often a change is made: a few in CI, many in soak.
func times(n int) int {
	if parts.Soak() {
		return 20 * n
	}
	return n
}

// each runs a test in both variants of the protocol.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	for _, sotw := range []bool{false, true} {
		name := "delta"
		if sotw {
			name = "sotw"
		}
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, sotw)) })
	}
}

// load is the traffic that must not notice anything.
func load(w *world, url string) *envoytest.Run { return rated(w, url, 800) }

// rated is load of so many requests a second.
func rated(w *world, url string, rate int) *envoytest.Run {
	return envoytest.Load{
		URL: url, Rate: rate, NewConnections: 0.2, Slow: 0.1, SlowFor: 300 * time.Millisecond,
		Check: func(status int, h http.Header, body string) string {
			if status == http.StatusOK {
				return ""
			}
			return fmt.Sprintf("%d %s %s", status, h.Get("x-envoy-flags"), body)
		},
	}.Start(w.t.Context())
}

// spotless fails if a request failed, or if a bound passed on a machine that
// had the time to generate the load.
func spotless(w *world, run *envoytest.Run) {
	w.t.Helper()
	rep := run.Stop()
	w.t.Log(rep)
	if rep.Failed > 0 || rep.Sent == 0 {
		w.t.Errorf("%d of %d requests failed", rep.Failed, rep.Sent)
	}
	if s := w.stuck(); len(s) > 0 && rep.Skipped == 0 {
		w.t.Errorf("bounds passed: %+v", s)
	}
}

// pause lets traffic see what was published.
func pause() { time.Sleep(250 * time.Millisecond) }

func TestRenamedClusterFailsNoRequest(t *testing.T) {
	for _, v := range []struct {
		name   string
		change func(*clusterv3.Cluster)
	}{{"plain", nil}, {"health checked", checked}} {
		t.Run(v.name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				b := envoytest.StartBackend(t, "b", 400*time.Millisecond)
				l := listener(t, "l", "r", nil)
				publish := func(name string) {
					w.publish(concat(cluster(t, name, b, v.change), []*ads.Resource{l, routes(t, "r", name)})...)
				}
				publish("c0")
				w.envoy.WaitReady(t)
				run := load(w, w.url("l"))
				for i := range times(5) {
					pause()
					publish(fmt.Sprintf("c%d", i+1))
					w.settled()
				}
				spotless(w, run)
			})
		})
	}
}

func TestRemovedClusterFailsNoRequest(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b := envoytest.StartBackend(t, "b", 0)
		one, two := cluster(t, "one", b, nil), cluster(t, "two", b, nil)
		l := listener(t, "l", "r", nil)
		both := concat(one, two, []*ads.Resource{l, routes(t, "r", "one", "two")})
		w.publish(both...)
		w.envoy.WaitReady(t)
		run := load(w, w.url("l"))
		for range times(5) {
			pause()
			w.publish(concat(one, []*ads.Resource{l, routes(t, "r", "one")})...)
			w.settled()
			pause()
			w.publish(both...)
			w.settled()
		}
		spotless(w, run)
	})
}

// A health check that takes its time is the business of the routes that wait for
// it, and of no others.
func TestSlowHealthCheckDelaysOnlyTheRoutesToItsCluster(t *testing.T) {
	const health = 3 * time.Second
	each(t, func(t *testing.T, w *world) {
		one, two := envoytest.StartBackend(t, "one", 0), envoytest.StartBackend(t, "two", 0)
		slow := cluster(t, "slow", envoytest.StartBackend(t, "slow", health), func(c *clusterv3.Cluster) {
			checked(c)
			c.HealthChecks[0].Timeout = durationpb.New(2 * health)
		})
		rest := concat(cluster(t, "one", one, nil), cluster(t, "two", two, nil),
			[]*ads.Resource{listener(t, "other", "others", nil), listener(t, "moved", "moves", nil)})
		w.publish(concat(rest, []*ads.Resource{routes(t, "others", "one"), routes(t, "moves", "one")})...)
		w.envoy.WaitReady(t)
		run := rated(w, w.url("moved"), 50)
		pause()
		start := time.Now()
		w.publish(concat(rest, slow, []*ads.Resource{routes(t, "others", "two"), routes(t, "moves", "slow")})...)
		w.envoy.Wait(t, "the other routes have changed", func() bool {
			_, n, _ := w.view.Acked(ads.RouteType, "others")
			return n == 1
		})
		t.Logf("the other routes changed after %v", time.Since(start))
		if _, n, _ := w.view.Acked(ads.ClusterType, "slow"); n > 0 {
			t.Error("the other routes waited for a cluster that they do not name")
		}
		w.settled()
		if took := time.Since(start); took < health {
			t.Errorf("the cluster was used after %v, before its health was known", took)
		}
		spotless(w, run)
	})
}

func TestClusterChangedInPlaceDoesNotHangInWarming(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b := envoytest.StartBackend(t, "b", 0)
		publish := func(timeout time.Duration) {
			w.publish(concat(cluster(t, "c", b, func(c *clusterv3.Cluster) { c.ConnectTimeout = durationpb.New(timeout) }),
				[]*ads.Resource{listener(t, "l", "r", nil), routes(t, "r", "c")})...)
		}
		publish(time.Second)
		w.envoy.WaitReady(t)
		run := load(w, w.url("l"))
		for i := range times(4) {
			pause()
			start := time.Now()
			publish(time.Second + time.Duration(i+1)*time.Millisecond)
			w.settled()
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("the changed cluster took %v to be acknowledged", took)
			}
			if n := w.envoy.Stats(t, "cluster_manager.warming_clusters")["cluster_manager.warming_clusters"]; n != 0 {
				t.Errorf("%d clusters are warming", n)
			}
		}
		spotless(w, run)
	})
}

func TestRestartedServerFailsNoRequest(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		b := envoytest.StartBackend(t, "b", 0)
		set := concat(cluster(t, "c", b, nil), []*ads.Resource{listener(t, "l", "r", nil), routes(t, "r", "c")})
		w.publish(set...)
		w.envoy.WaitReady(t)
		run := load(w, w.url("l"))
		for range times(3) {
			pause()
			w.stop()
			pause()
			w.start()
			// Envoy reconnects to a server that does not know its state yet: it
			// must hear nothing rather than "nothing is left" (R6).
			w.envoy.Wait(t, "Envoy is back", func() bool { return w.view.Streams() > 0 })
			pause()
			w.publish(set...)
			w.settled()
		}
		spotless(w, run)
	})
}

func TestListenerMovedToNewRoutesAndClusterFailsNoRequest(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stop() // before Envoy has anything
		w.drain = drainTime + time.Second
		w.start()
		b := envoytest.StartBackend(t, "b", 0)
		port := freePort(t) // a listener on port 0 could not be changed in place
		publish := func(n int) {
			c, r := fmt.Sprintf("c%d", n), fmt.Sprintf("r%d", n)
			w.publish(concat(cluster(t, c, b, nil), []*ads.Resource{listener(t, "l", r, bound(port)), routes(t, r, c)})...)
		}
		publish(0)
		w.envoy.WaitReady(t)
		run := load(w, w.url("l"))
		for i := range times(2) {
			pause()
			publish(i + 1)
			w.settled()
		}
		spotless(w, run)
	})
}

// Without the waits of Proxy mode the same load loses requests: the tests above
// would see it.
func TestOrderAloneLosesRequests(t *testing.T) {
	w := newWorldOf(t, ads.Relay, false)
	b := envoytest.StartBackend(t, "b", 400*time.Millisecond)
	l := listener(t, "l", "r", nil)
	publish := func(name string) {
		w.publish(concat(cluster(t, name, b, checked), []*ads.Resource{l, routes(t, "r", name)})...)
	}
	publish("c0")
	w.envoy.WaitReady(t)
	run := load(w, w.url("l"))
	for i := range 3 {
		pause()
		publish(fmt.Sprintf("c%d", i+1))
		w.settled()
	}
	if rep := run.Stop(); rep.Failed == 0 {
		t.Errorf("no request failed: %v", rep)
	} else {
		t.Log(rep)
	}
}
