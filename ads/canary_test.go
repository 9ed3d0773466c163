package ads_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"signet.example/ads"
)

// replicas are n clients of a view that have routes r.
func replicas(t *testing.T, w *world, n int, rs ...*ads.Resource) []*client {
	t.Helper()
	w.publish(rs...)
	all := make([]*client, n)
	for i := range all {
		all[i] = w.connect(true)
		all[i].subscribe(rds, "*")
		for range rs { // one a response
			all[i].ack(all[i].of(rds))
		}
	}
	synctest.Wait()
	return all
}

// first is the one of clients that has a response, and the others.
func first(t *testing.T, all []*client) (has *client, others []*client) {
	t.Helper()
	synctest.Wait()
	for _, c := range all {
		switch {
		case len(c.in) == 0:
			others = append(others, c)
		case has != nil:
			t.Fatal("two replicas have it")
		default:
			has = c
		}
	}
	if has == nil {
		t.Fatal("no replica has it")
	}
	return has, others
}

func TestAChangeIsTakenByOneReplicaBeforeTheOthersHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := replicas(t, w, 3, res(t, rds, "r", "1"))
		w.publish(res(t, rds, "r", "2"))
		has, others := first(t, all)
		if _, ok := w.view.Synced(); ok || w.view.Answered() {
			t.Error("the view is synced while one of three has it")
		}
		late := w.connect(true) // who comes meanwhile has what the others have
		late.subscribe(rds, "*")
		late.ack(late.of(rds))
		has.ack(has.of(rds))
		for _, c := range append(others, late) {
			c.ack(c.of(rds).want(t, []string{"r"}, nil))
		}
		synctest.Wait()
		if _, ok := w.view.Synced(); !ok || !w.view.Answered() || w.count(ads.Stuck) > 0 {
			t.Error("the view is not synced once all have it")
		}
	})
}

func TestWhatOneReplicaRefusesNoOtherSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		good := res(t, rds, "r", "good")
		all := replicas(t, w, 3, good, res(t, rds, "s", "1"))
		w.publish(res(t, rds, "r", "bad"), res(t, rds, "s", "2"))
		has, others := first(t, all)
		for range 2 {
			if a := has.of(rds); a.Names[0] == "r" {
				has.nack(a, "no")
			} else {
				has.ack(a)
			}
		}
		for _, c := range others {
			c.ack(c.of(rds).want(t, []string{"s"}, nil)) // the rest of the change goes on
			c.silent()
		}
		has.silent()
		late := w.connect(true)
		late.subscribe(rds, "r")
		if got := late.of(rds).Versions["r"]; got != good.Version {
			t.Errorf("who comes later has %s of the refused", got)
		}
		if rejs := w.view.Rejected(); len(rejs) != 1 || rejs[0].Name != "r" || rejs[0].Message != "no" {
			t.Errorf("rejected: %v", rejs)
		}
	})
}

func TestTheFirstSetOfAViewIsForAllReplicasThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := []*client{w.connect(true), w.connect(true), w.connect(true)}
		for _, c := range all {
			c.subscribe(sds, "*")
			c.subscribe(rds, "*")
		}
		synctest.Wait()
		w.publish(res(t, sds, "s", "1"), res(t, rds, "r", "1"))
		for _, c := range all {
			c.ack(c.of(sds))
			c.ack(c.of(rds))
		}
	})
}

func TestAReplicaThatSaysNothingDelaysTheOthersByASecondOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := replicas(t, w, 3, res(t, rds, "r", "1"))
		w.publish(res(t, rds, "r", "2"))
		mute, others := first(t, all)
		begun := time.Now()
		mute.of(rds)
		for _, c := range others {
			c.ack(c.of(rds))
		}
		if took := time.Since(begun); took != time.Second || w.count(ads.Stuck) != 1 {
			t.Errorf("the others have it after %s, %d times it was said", took, w.count(ads.Stuck))
		}
		synctest.Wait()
		w.publish(res(t, rds, "r", "3"))
		synctest.Wait()
		if len(others[0].in)+len(others[1].in) != 1 {
			t.Error("the mute one is asked again")
		}
		begun = time.Now()
		for i := range 20 { // it alone goes without
			has, rest := first(t, others)
			has.ack(has.of(rds))
			rest[0].ack(rest[0].of(rds))
			synctest.Wait()
			w.publish(res(t, rds, "r", fmt.Sprint(4+i)))
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("20 changes took %s beside a mute one", took)
		}
		want := w.view.Set().Get(rds, "r").Version
		has, rest := first(t, others)
		has.ack(has.of(rds))
		rest[0].ack(rest[0].of(rds))
		for a := (answer{}); a.Versions["r"] != want; { // it has what it was sent, and then the newest
			a = mute.of(rds)
			mute.ack(a)
		}
		mute.silent()
	})
}

// A certificate, an endpoint that left, and what goes away wait for nobody's answer.
func TestWhatClosesSomethingIsNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		r, gone := res(t, rds, "r", "1"), res(t, rds, "gone", "1")
		set := func(secret, endpoints string, rs ...*ads.Resource) []*ads.Resource {
			return append(rs, res(t, sds, "s", secret), res(t, eds, "e", endpoints))
		}
		w.publish(set("1", "1", r, gone)...)
		all := []*client{w.connect(true), w.connect(true)}
		for _, c := range all {
			for _, typeURL := range []string{sds, eds, rds} {
				c.subscribe(typeURL, "*")
				c.ack(c.of(typeURL))
			}
			c.ack(c.of(rds)) // one a response
		}
		synctest.Wait()
		both := func(typeURL string) {
			t.Helper()
			synctest.Wait()
			for _, c := range all {
				if len(c.in) != 1 {
					t.Fatalf("%d responses of %s are there", len(c.in), typeURL)
				}
				c.ack(c.of(typeURL))
			}
		}
		w.publish(set("2", "1", r, gone)...)
		both(sds)
		w.publish(set("2", "2", r, gone)...)
		both(eds)
		w.publish(set("2", "2", r)...)
		both(rds)
		w.publish(set("2", "2", res(t, rds, "r", "2"))...)
		has, others := first(t, all)
		a := has.of(rds)
		w.publish(set("3", "2", res(t, rds, "r", "3"))...) // while one tries
		both(sds)
		w.publish(set("4", "2", res(t, rds, "r", "3"))...)
		both(sds)
		has.ack(a)
		others[0].ack(others[0].of(rds))
		has, others = first(t, all)
		has.ack(has.of(rds))
		others[0].ack(others[0].of(rds))
		synctest.Wait()
		w.publish(set("4", "2", res(t, rds, "r", "4"))...)
		has, others = first(t, all)
		has.ack(has.of(rds))
		others[0].of(rds)
		w.publish(set("4", "2", res(t, rds, "r", "4"), res(t, rds, "new", "1"))...)
		has, others = first(t, all)
		has.of(rds)
		w.publish(set("4", "2", res(t, rds, "r", "4"))...) // back to what all have
		has.of(rds).want(t, nil, []string{"new"})
		others[0].silent()
	})
}

func TestWhatIsPublishedWhileAChangeIsTriedIsTriedNextAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := replicas(t, w, 2, res(t, rds, "r", "1"))
		w.publish(res(t, rds, "r", "2"))
		has, others := first(t, all)
		for _, content := range []string{"3", "4", "5"} {
			w.publish(res(t, rds, "r", content))
		}
		has.ack(has.of(rds))
		others[0].ack(others[0].of(rds))
		has, others = first(t, all)
		want := w.view.Set().Get(rds, "r").Version
		for _, c := range append(others, has)[1:] { // the first has it
			a := c.of(rds)
			c.ack(a)
			if a.Versions["r"] != want {
				t.Errorf("the next version is %s, want the newest %s", a.Versions["r"], want)
			}
		}
		others[0].ack(others[0].of(rds))
		has.silent()
	})
}

func TestWhatEndsTwoReplicasIsNotForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := replicas(t, w, 4, res(t, rds, "r", "1"))
		w.publish(res(t, rds, "r", "deadly"))
		for range 2 {
			var has *client
			has, all = first(t, all)
			has.close()
		}
		for _, c := range all {
			c.silent()
		}
		if rejs := w.view.Rejected(); len(rejs) != 1 || rejs[0].Name != "r" || w.count(ads.Rejected) != 1 {
			t.Errorf("rejected: %v", rejs)
		}
		w.publish(res(t, rds, "r", "2"))
		has, others := first(t, all)
		has.ack(has.of(rds))
		others[0].of(rds)
	})
}

func TestWhatOneVersionOfAProxyRefusesAnotherMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		connect := func(version string) *client {
			c := w.connect(true)
			c.send(&discoveryv3.DeltaDiscoveryRequest{
				Node:    &corev3.Node{Id: "n", UserAgentName: "envoy", UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version}},
				TypeUrl: rds, ResourceNamesSubscribe: []string{"*"},
			})
			return c
		}
		w.publish(res(t, rds, "r", "new"))
		a := connect("1")
		a.nack(a.of(rds), "unknown field")
		synctest.Wait()
		b, c := connect("1"), connect("2")
		b.of(rds).want(t, nil, nil)
		c.ack(c.of(rds).want(t, []string{"r"}, nil))
		for _, c := range []*client{a, b, c} {
			c.silent()
		}
	})
}

func TestOneAgentHasAChangeBeforeTheOthersUntilItIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := []string{"x", "x", "y"}
		w := newWorldOf(t, ads.Relay, &ads.Server{Peer: func(context.Context) string {
			p := peers[0]
			peers = peers[1:]
			return p
		}}, ads.ServerOptions(nil)...)
		all := replicas(t, w, 3, res(t, rds, "r", "1"))
		try := func(content string) *ads.Set {
			s, err := ads.NewSet(res(t, rds, "r", content))
			if err != nil {
				t.Fatal(err)
			}
			w.view.Try(s, "x")
			return s
		}
		taken := func(c *client) string {
			t.Helper()
			a := c.of(rds)
			c.ack(a)
			return a.Versions["r"]
		}
		two := try("2")
		for _, c := range all[:2] {
			if got := taken(c); got != two.Get(rds, "r").Version {
				t.Errorf("the agent that tries has %s", got)
			}
		}
		all[2].silent()
		w.view.Publish(two)
		taken(all[2])
		for _, c := range all {
			c.silent()
		}
		three := try("3")
		for _, want := range []*ads.Set{three, two} {
			if want == two {
				w.view.Publish(two) // it is taken back
			}
			for _, c := range all[:2] {
				if got := taken(c); got != want.Get(rds, "r").Version {
					t.Errorf("the agent that tries has %s", got)
				}
			}
		}
		all[2].silent()
	})
}
