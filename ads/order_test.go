package ads_test

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
)

// edsCluster is a real Cluster that waits for endpoints of its name.
func edsCluster(t *testing.T, name, content string) *ads.Resource {
	t.Helper()
	r, err := ads.NewResource(cds, name, &clusterv3.Cluster{
		Name: name, AltStatName: content, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// using is res of routes or a listener that names a cluster.
func using(t *testing.T, typeURL, name, cluster, content string) *ads.Resource {
	t.Helper()
	r, err := ads.NewResource(typeURL, name, &corev3.Node{Id: name + "=" + content, Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// both runs a test in delta and in state-of-the-world, in a bubble of its own
// with a clock that jumps.
func both(t *testing.T, mode ads.Mode, test func(t *testing.T, w *world, c *client)) {
	for _, delta := range []bool{true, false} {
		t.Run(map[bool]string{true: "delta", false: "sotw"}[delta], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, mode, ads.ServerOptions(nil)...)
				test(t, w, w.connect(delta))
			})
		})
	}
}

// attach brings a client to the state that an Envoy has which acknowledged
// cluster, endpoints, listener and routes. It returns the latest responses.
func attach(c *client, cluster string) map[string]answer {
	c.t.Helper()
	last := make(map[string]answer)
	for _, ask := range []struct {
		typeURL string
		names   []string
	}{{cds, nil}, {eds, []string{cluster}}, {lds, nil}, {rds, []string{"r"}}} {
		c.request(ask.typeURL, "", ask.names...)
		a := c.of(ask.typeURL)
		c.ack(a, ask.names...)
		last[ask.typeURL] = a
	}
	return last
}

func TestRoutesWaitForClustersAndTheirEndpoints(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l := res(t, lds, "l", "1")
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1")}
		w.publish(append(old, l, using(t, rds, "r", "old", ""))...)
		last := attach(c, "old")

		w.publish(append(old, edsCluster(t, "new", "1"), res(t, eds, "new", "1"), l, using(t, rds, "r", "new", ""))...)
		clusters := c.of(cds)
		c.silent() // nobody subscribed to the new endpoints
		c.request(eds, last[eds].Nonce, "old", "new")
		endpoints := c.of(eds) // without waiting for the clusters
		c.silent()             // and the routes wait for both
		c.ack(endpoints, "old", "new")
		c.silent()
		c.ack(clusters)
		c.of(rds).want(t, []string{"r"}, nil)
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestRoutesWaitUntilEndpointsAreSubscribedTo(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l := res(t, lds, "l", "1")
		w.publish(edsCluster(t, "old", "1"), res(t, eds, "old", "1"), l, using(t, rds, "r", "old", ""))
		attach(c, "old")
		w.publish(edsCluster(t, "old", "1"), res(t, eds, "old", "1"), edsCluster(t, "new", "1"), res(t, eds, "new", "1"), l, using(t, rds, "r", "new", ""))
		c.ack(c.of(cds))
		c.silent()
		start := time.Now()
		c.of(rds)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("waited %v", took)
		}
		if n := w.count(ads.Stuck); n != 1 {
			t.Errorf("%d bounds passed, want 1", n)
		}
	})
}

func TestRoutesGoAfterFiveSecondsWithoutAcknowledgement(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		cl := func(v string) []*ads.Resource { return []*ads.Resource{edsCluster(t, "c", v), res(t, eds, "c", "1")} }
		w.publish(append(cl("1"), using(t, lds, "l", "c", "1"), using(t, rds, "r", "c", "1"))...)
		attach(c, "c")
		start := time.Now()
		w.publish(append(cl("2"), using(t, lds, "l", "c", "2"), using(t, rds, "r", "c", "2"))...)
		c.of(cds) // never acknowledged
		time.Sleep(3 * time.Second)
		w.publish(append(cl("3"), using(t, lds, "l", "c", "2"), using(t, rds, "r", "c", "3"))...)
		c.of(cds) // sent again although the last was not acknowledged
		c.of(lds)
		c.of(rds)
		if took := time.Since(start); took < 5*time.Second || took > 5100*time.Millisecond {
			t.Errorf("listeners and routes came after %v", took)
		}
		if n := w.count(ads.Stuck); n != 1 {
			t.Errorf("%d bounds passed, want 1", n)
		}
		w.publish(append(cl("3"), using(t, lds, "l", "c", "2"), using(t, rds, "r", "c", "4"))...)
		at := time.Now()
		c.of(rds)
		if took := time.Since(at); took > time.Second {
			t.Errorf("the next change waited %v for the same clusters", took)
		}
	})
}

func TestOnlyRoutesThatNameAClusterUnderWayWait(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1")}
		keep := []*ads.Resource{res(t, cds, "keep", "1"), res(t, lds, "l", "1")}
		w.publish(slices.Concat(old, keep, []*ads.Resource{using(t, rds, "r", "old", "1"), using(t, rds, "s", "keep", "1")})...)
		last := attach(c, "old")
		c.request(rds, last[rds].Nonce, map[bool][]string{true: {"s"}, false: {"r", "s"}}[c.delta != nil]...)
		c.ack(c.of(rds).want(t, []string{"s"}, nil), "r", "s")

		next := append(keep, edsCluster(t, "new", "1"), res(t, eds, "new", "1"), using(t, rds, "r", "new", "1"))
		w.publish(append(next, using(t, rds, "s", "keep", "2"))...)
		clusters := c.of(cds).want(t, map[bool][]string{true: {"new"}, false: {"keep", "new", "old"}}[c.delta != nil], nil)
		c.ack(c.of(rds).want(t, []string{"s"}, nil), "r", "s")
		c.request(eds, last[eds].Nonce, "old", "new")
		c.ack(c.of(eds), "old", "new")
		w.publish(append(next, using(t, rds, "s", "keep", "3"))...)
		c.ack(c.of(rds).want(t, []string{"s"}, nil), "r", "s")
		c.silent() // what r used is still there
		c.ack(clusters)
		c.ack(c.of(rds).want(t, []string{"r"}, nil), "r", "s")
		c.of(cds).want(t, map[bool][]string{true: nil, false: {"keep", "new"}}[c.delta != nil], map[bool][]string{true: {"old"}}[c.delta != nil])
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestChangesOfOtherRoutesDoNotProlongTheWait(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1"), res(t, lds, "l", "1")}
		w.publish(append(old, using(t, rds, "r", "old", "1"), using(t, rds, "s", "old", ""))...)
		last := attach(c, "old")
		c.request(rds, last[rds].Nonce, map[bool][]string{true: {"s"}, false: {"r", "s"}}[c.delta != nil]...)
		c.ack(c.of(rds).want(t, []string{"s"}, nil), "r", "s")
		start := time.Now()
		for i := range 3 {
			w.publish(append(old, edsCluster(t, "new", "1"), using(t, rds, "r", "new", "1"), using(t, rds, "s", "old", strconv.Itoa(i)))...)
			if i == 0 {
				c.of(cds) // never acknowledged
			}
			c.ack(c.of(rds).want(t, []string{"s"}, nil), "r", "s")
			time.Sleep(1500 * time.Millisecond)
		}
		c.of(rds).want(t, []string{"r"}, nil)
		if took := time.Since(start); took < 5*time.Second || took > 5100*time.Millisecond {
			t.Errorf("waited %v", took)
		}
	})
}

func TestRoutesWaitForAClusterThatTheyUseAlreadyWhileItChanges(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l, e := res(t, lds, "l", "1"), res(t, eds, "c", "1")
		w.publish(edsCluster(t, "c", "1"), e, l, using(t, rds, "r", "c", "0%"))
		attach(c, "c")
		w.publish(edsCluster(t, "c", "2"), e, l, using(t, rds, "r", "c", "100%"))
		clusters := c.of(cds)
		c.silent() // the one it has may be of no use
		c.ack(clusters)
		c.of(rds)
	})
}

func TestRoutesWaitForAClusterThatComesBackWhileItsRemovalIsUnderWay(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l, e, cl := res(t, lds, "l", "1"), res(t, eds, "c", "1"), edsCluster(t, "c", "1")
		w.publish(cl, e, l, using(t, rds, "r", "c", ""))
		attach(c, "c")
		w.publish(l, res(t, rds, "r", "none"))
		c.ack(c.of(rds), "r")
		gone := c.of(cds)
		if c.delta != nil {
			c.ack(c.of(eds))
		}
		w.publish(cl, e, l, using(t, rds, "r", "c", ""))
		back := c.of(cds)
		c.ack(c.of(eds), "c")
		if c.delta != nil {
			c.ack(gone)
		}
		c.silent()
		c.ack(back)
		c.of(rds)
	})
}

func TestListenersOfAStateOfTheWorldResponseWaitTogether(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1")}
		w.publish(append(old, res(t, lds, "l", "1"), res(t, rds, "r", "1"))...)
		attach(c, "old")
		w.publish(append(old, edsCluster(t, "new", "1"), res(t, lds, "l", "2"), using(t, lds, "m", "new", ""), res(t, rds, "r", "1"))...)
		clusters := c.of(cds)
		if c.delta != nil {
			c.ack(c.of(lds).want(t, []string{"l"}, nil))
			c.ack(clusters)
			c.of(lds).want(t, []string{"m"}, nil)
			return
		}
		c.silent() // without m would mean that there is none
		c.ack(clusters)
		c.of(lds).want(t, []string{"l", "m"}, nil)
	})
}

func TestAListenerThatMovesToOtherRoutesWaitsForTheirCluster(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1")}
		w.publish(append(old, res(t, lds, "l", "1"), using(t, rds, "r", "old", "1"))...)
		attach(c, "old")
		w.publish(edsCluster(t, "new", "1"), using(t, lds, "l", "s", "2"), using(t, rds, "s", "new", "1"))
		clusters := c.of(cds)
		if c.delta != nil {
			c.ack(c.of(rds).want(t, nil, []string{"r"})) // which Envoy ignores
		}
		c.silent() // it would stay with its old routes, and nobody know it
		c.ack(clusters)
		c.of(lds).want(t, []string{"l"}, nil)
	})
}

func TestWhatGoesAwayWaitsWithWhatMayReplaceIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		c := w.connect(true)
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1"), res(t, rds, "r", "1")}
		w.publish(append(old, res(t, lds, "gone", "1"), res(t, lds, "l", "1"))...)
		attach(c, "old")
		w.publish(append(old, edsCluster(t, "new", "1"), res(t, lds, "l", "2"), using(t, lds, "m", "new", ""))...)
		clusters := c.of(cds)
		c.ack(c.of(lds).want(t, []string{"l"}, nil))
		c.subscribe(lds, "nothing")
		c.silent()
		w.publish(append(old, edsCluster(t, "new", "1"), res(t, lds, "l", "3"), using(t, lds, "m", "new", ""))...)
		c.ack(c.of(lds).want(t, []string{"l"}, nil))
		c.ack(clusters)
		c.of(lds).want(t, []string{"m"}, []string{"gone", "nothing"}) // so is the absence of what was asked for
	})
}

func TestClustersAreRemovedAfterEveryStreamMovedItsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		a, b := w.connect(true), w.connect(true)
		l := res(t, lds, "l", "1")
		keep := []*ads.Resource{edsCluster(t, "keep", "1"), res(t, eds, "keep", "1")}
		w.publish(append(keep, edsCluster(t, "gone", "1"), res(t, eds, "gone", "1"), l, res(t, rds, "r", "1"))...)
		for _, c := range []*client{a, b} {
			c.subscribe(cds)
			c.ack(c.of(cds))
			c.subscribe(eds, "keep", "gone")
			c.ack(c.of(eds))
			c.subscribe(lds)
			c.ack(c.of(lds))
			c.subscribe(rds, "r")
			c.ack(c.of(rds))
		}
		w.publish(append(keep, l, res(t, rds, "r", "2"))...)
		c := a.of(rds)
		a.silent()
		a.ack(c)
		a.silent() // b is not there yet
		a.ack(c)   // a stale nonce means nothing, but the stream looks again
		a.silent()
		d := b.of(rds)
		b.ack(d)
		for _, c := range []*client{a, b} {
			c.of(cds).want(t, nil, []string{"gone"})
			c.of(eds).want(t, nil, []string{"gone"})
		}
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestADeadStreamHoldsNoRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		a, b := w.connect(true), w.connect(true)
		l := res(t, lds, "l", "1")
		w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), l, res(t, rds, "r", "1"))
		attach(a, "c")
		attach(b, "c")
		w.publish(l, res(t, rds, "r", "2"))
		a.ack(a.of(rds))
		a.silent()
		b.close()
		a.of(cds).want(t, nil, []string{"c"})
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestClustersAreRemovedAfterFiveSecondsWithoutAcknowledgement(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l := res(t, lds, "l", "1")
		w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), l, res(t, rds, "r", "1"))
		attach(c, "c")
		start := time.Now()
		w.publish(l, res(t, rds, "r", "2"))
		c.of(rds) // never acknowledged
		c.of(cds).want(t, nil, map[bool][]string{true: {"c"}}[c.delta != nil])
		if took := time.Since(start); took < 5*time.Second || took > 5100*time.Millisecond {
			t.Errorf("removed after %v", took)
		}
		if n := w.count(ads.Stuck); n == 0 {
			t.Error("nobody was told")
		}
	})
}

func TestTheClustersOfAListenerThatMovedStayWhileItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, ads.Proxy, &ads.Server{Drain: 3 * time.Second}, ads.ServerOptions(nil)...)
		c := w.connect(true)
		w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), res(t, lds, "l", "1"), res(t, rds, "r", "1"))
		attach(c, "c")
		w.publish(res(t, lds, "l", "2"), res(t, rds, "r", "2"))
		c.ack(c.of(lds))
		c.ack(c.of(rds))
		start := time.Now()
		c.of(cds).want(t, nil, []string{"c"})
		if took := time.Since(start); took < 3*time.Second || took > 3100*time.Millisecond {
			t.Errorf("removed after %v", took)
		}
	})
}

func TestTheClusterThatRoutesLedToStaysForRequestsUnderWay(t *testing.T) {
	for _, delta := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorldOf(t, ads.Proxy, &ads.Server{Linger: time.Second}, ads.ServerOptions(nil)...)
			c := w.connect(delta)
			l := res(t, lds, "l", "1")
			w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), l, res(t, rds, "r", "1"))
			attach(c, "c")
			w.publish(l, res(t, rds, "r", "2"))
			time.Sleep(time.Second)
			c.ack(c.of(rds))
			start := time.Now()
			c.of(cds).want(t, nil, map[bool][]string{true: {"c"}}[delta])
			if took := time.Since(start); took < time.Second || took > 1100*time.Millisecond {
				t.Errorf("removed after %v", took)
			}
		})
	}
}

func TestARemovalThatIsTakenBackIsNotSent(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l, cl, e := res(t, lds, "l", "1"), edsCluster(t, "c", "1"), res(t, eds, "c", "1")
		w.publish(cl, e, l, res(t, rds, "r", "1"))
		attach(c, "c")
		w.publish(l, res(t, rds, "r", "2"))
		a := c.of(rds)
		w.publish(cl, e, l, res(t, rds, "r", "2"))
		c.ack(a, "r")
		c.silent()
		time.Sleep(10 * time.Second)
		c.silent()
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestNothingIsSentBeforeTheFirstPublish(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		c.request(cds, "")
		c.request(sds, "", "s")
		time.Sleep(time.Hour)
		c.silent()
		w.publish()
		if got := c.next(); got.Type != cds && got.Type != sds {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnEmptySetIsToldToAProxyThatStarts(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish()
		c.request(cds, "")
		c.of(cds).want(t, nil, nil)
		c.request(lds, "")
		c.of(lds).want(t, nil, nil)
	})
}

func TestRouteConfigurationsGoOnePerResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		c := w.connect(true)
		w.publish(res(t, rds, "a", "1"), res(t, rds, "b", "1"), res(t, rds, "c", "1"))
		c.subscribe(rds, "a", "b", "c")
		var got []answer
		for range 3 {
			a := c.of(rds)
			if len(a.Names) != 1 {
				t.Fatalf("a response of %v", a.Names)
			}
			got = append(got, a)
		}
		c.ack(got[0])
		c.nack(got[1], "missing ): (")
		c.ack(got[2])
		synctest.Wait()
		if rejs := w.view.Rejected(); len(rejs) != 1 || rejs[0].Name != got[1].Names[0] {
			t.Errorf("rejected %v", rejs)
		}
	})
}

func TestRelaySendsInOrderAndTheViewLast(t *testing.T) {
	both(t, ads.Relay, func(t *testing.T, w *world, c *client) {
		all := []string{sds, cds, eds, lds, rds, ads.BundleType, ads.EntryType, ads.PolicyType, ads.ViewType}
		for _, typeURL := range slices.Backward(all) {
			c.request(typeURL, "", "*")
		}
		synctest.Wait()
		for _, v := range []string{"1", "2"} {
			var rs []*ads.Resource
			for _, typeURL := range all {
				rs = append(rs, res(t, typeURL, "x", v))
			}
			w.publish(rs...)
			for _, typeURL := range all {
				c.of(typeURL) // none waits for an acknowledgement
			}
		}
	})
}

func TestRelayClosesACompleteStateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		c := w.connect(true)
		rs := []*ads.Resource{res(t, ads.ViewType, "v", "1")}
		for _, n := range names("r", 150) {
			rs = append(rs, res(t, rds, n, "1"))
		}
		c.subscribe(rds, "*")
		c.subscribe(ads.ViewType, "*")
		synctest.Wait()
		w.publish(rs...)
		for range 64 {
			defer c.ack(c.of(rds))
		}
		c.silent() // the window is full
	})
}

func TestRelayWindowMovesOnWithEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
		c := w.connect(true)
		rs := []*ads.Resource{res(t, ads.ViewType, "v", "1")}
		for _, n := range names("r", 150) {
			rs = append(rs, res(t, rds, n, "1"))
		}
		c.subscribe(rds, "*")
		c.subscribe(ads.ViewType, "*")
		synctest.Wait()
		w.publish(rs...)
		seen := make(map[string]bool)
		for len(seen) < 150 {
			a := c.of(rds)
			seen[a.Names[0]] = true
			c.ack(a)
		}
		c.of(ads.ViewType)
		c.silent()
	})
}

func TestReconnectedProxyKeepsItsOldClusterUntilItsRoutesMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		c := w.connect(true)
		l := res(t, lds, "l", "1")
		w.publish(l, edsCluster(t, "new", "1"), res(t, eds, "new", "1"), res(t, rds, "r", "new"))
		// The server that this proxy knew before it was restarted had "old".
		c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: cds, InitialResourceVersions: map[string]string{"old": "1"}})
		c.ack(c.of(cds).want(t, []string{"new"}, nil))
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"old", "new"}, InitialResourceVersions: map[string]string{"old": "1"}})
		c.ack(c.of(eds).want(t, []string{"new"}, nil))
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: lds, InitialResourceVersions: map[string]string{"l": l.Version}})
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, ResourceNamesSubscribe: []string{"r"}, InitialResourceVersions: map[string]string{"r": "1"}})
		a := c.of(rds).want(t, []string{"r"}, nil)
		c.silent()
		c.ack(a)
		c.of(cds).want(t, nil, []string{"old"})
		c.of(eds).want(t, nil, []string{"old"})
	})
}

func TestAChangeOfClustersWaitsForTheListenersOfAProxyThatStarts(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), res(t, lds, "l", "1"))
		c.request(cds, "")
		c.ack(c.of(cds))
		w.publish(edsCluster(t, "c", "2"), res(t, eds, "c", "2"), res(t, lds, "l", "1"))
		c.silent() // its clusters are still coming up
		c.request(eds, "", "c")
		c.ack(c.of(eds), "c") // endpoints go on meanwhile
		c.silent()
		c.request(lds, "") // now they are
		c.ack(c.of(cds))
	})
}

func TestAProxyThatNeverAsksForListenersGetsItsClustersAfterFifteenSeconds(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(edsCluster(t, "c", "1"), res(t, eds, "c", "1"), res(t, lds, "l", "1"))
		c.request(cds, "")
		c.ack(c.of(cds))
		w.publish(edsCluster(t, "c", "2"), res(t, eds, "c", "2"), res(t, lds, "l", "1"))
		began := time.Now()
		c.of(cds)
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("after %s, want 15s", took)
		}
	})
}

// byHeader is a route that takes its cluster's name from the request, of those listed or of all.
func byHeader(t *testing.T, name string, listed ...string) *ads.Resource {
	t.Helper()
	route := &routev3.Route{Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_ClusterHeader{ClusterHeader: "x-to"}}}}
	if listed != nil {
		list := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for _, n := range listed {
			list.Fields[n] = structpb.NewBoolValue(true)
		}
		route.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"signet.clusters": list}}
	}
	r, err := ads.NewResource(rds, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "v", Routes: []*routev3.Route{route}}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoutesByAHeaderWaitForTheClustersThatItMayName(t *testing.T) {
	for _, c := range []struct {
		name  string
		route func(t *testing.T) *ads.Resource
		waits bool
	}{
		{"any", func(t *testing.T) *ads.Resource { return byHeader(t, "r") }, true},
		{"listed", func(t *testing.T) *ads.Resource { return byHeader(t, "r", "new") }, true},
		{"others are listed", func(t *testing.T) *ads.Resource { return byHeader(t, "r", "old") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			both(t, ads.Proxy, func(t *testing.T, w *world, cl *client) {
				old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1"), res(t, lds, "l", "1")}
				w.publish(append(old, using(t, rds, "r", "old", "1"))...)
				attach(cl, "old")
				w.publish(append(old, edsCluster(t, "new", "1"), res(t, eds, "new", "1"), c.route(t))...)
				cl.of(cds)
				if c.waits {
					cl.silent()
				} else {
					cl.of(rds)
				}
			})
		})
	}
}
