package ads_test

import (
	"testing"
	"testing/synctest"
	"time"

	"signet.example/ads"
)

func TestARefusedVersionIsKeptFromTheOtherStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		a := w.connect(true)
		good := res(t, rds, "r", "good")
		w.publish(good)
		a.subscribe(rds, "r")
		a.ack(a.of(rds))
		bad := res(t, rds, "r", "bad")
		w.publish(bad)
		a.nack(a.of(rds), "no")
		synctest.Wait()

		b := w.connect(true)
		b.subscribe(rds, "r")
		if got := b.of(rds).want(t, []string{"r"}, nil); got.Versions["r"] != good.Version {
			t.Errorf("a new stream was sent %s, want the last good %s", got.Versions["r"], good.Version)
		}
		if s := w.view.Set().Get(rds, "r"); s.Version != bad.Version {
			t.Errorf("the published set became %s", s.Version)
		}
		version, streams, total := w.view.Acked(rds, "r")
		if version != bad.Version || streams != 0 || total != 2 {
			t.Errorf("acknowledged: %s by %d of %d", version, streams, total)
		}
	})
}

func TestARefusedVersionWithoutAGoodOneIsWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		a := w.connect(true)
		w.publish(res(t, rds, "r", "bad"))
		a.subscribe(rds, "r")
		a.nack(a.of(rds), "no")
		synctest.Wait()
		b := w.connect(true)
		b.subscribe(rds, "r")
		b.of(rds).want(t, nil, []string{"r"})
		w.publish(res(t, rds, "r", "good"))
		for _, c := range []*client{a, b} {
			c.of(rds).want(t, []string{"r"}, nil)
		}
	})
}

func TestARefusedResponseOfSeveralBlamesTheNamed(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, lds, "a", "1"), res(t, lds, "a1", "1"), res(t, lds, "b", "1"))
		c.request(lds, "")
		c.nack(c.of(lds), "Error adding/updating listener(s) a1: bad address\n")
		again := c.of(lds).want(t, []string{"a", "b"}, nil) // a part may not have been applied
		c.ack(again)
		c.silent()
		if rejs := w.view.Rejected(); len(rejs) != 1 || rejs[0].Name != "a1" {
			t.Errorf("rejected %v", rejs)
		}
	})
}

func TestARefusedResponseThatNamesNothingBlamesAllThatIsNew(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "old", "1"))
		c.request(cds, "")
		c.ack(c.of(cds))
		synctest.Wait()
		w.publish(res(t, cds, "old", "1"), res(t, cds, "x", "1"), res(t, cds, "y", "1"))
		c.nack(c.of(cds), "no reason given")
		c.silent()
		if rejs := w.view.Rejected(); len(rejs) != 2 || rejs[0].Name != "x" || rejs[1].Name != "y" {
			t.Errorf("rejected %v", rejs)
		}
	})
}

func TestRefusedRoutesKeepTheirClusterForAsLongAsItTakes(t *testing.T) {
	both(t, ads.Proxy, func(t *testing.T, w *world, c *client) {
		l := res(t, lds, "l", "1")
		old := []*ads.Resource{edsCluster(t, "old", "1"), res(t, eds, "old", "1")}
		w.publish(append(old, l, res(t, rds, "r", "old"))...)
		attach(c, "old")
		w.publish(l, res(t, rds, "r", "bad"))
		c.nack(c.of(rds), "no", "r")
		time.Sleep(time.Hour)
		c.silent()
		w.publish(l, res(t, rds, "r", "better"))
		c.ack(c.of(rds), "r")
		c.of(cds).want(t, nil, map[bool][]string{true: {"old"}}[c.delta != nil])
		if n := w.count(ads.Stuck); n != 0 {
			t.Errorf("%d bounds passed", n)
		}
	})
}

func TestARelayRemembersNoRefusal(t *testing.T) {
	both(t, ads.Relay, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "a", "1"))
		c.request(cds, "")
		c.nack(c.of(cds), "no")
		c.silent() // and does not repeat itself
		if rejs := w.view.Rejected(); len(rejs) != 0 {
			t.Errorf("rejected %v", rejs)
		}
		if n := w.count(ads.Rejected); n != 1 {
			t.Errorf("%d rejections were told, want 1", n)
		}
	})
}

func TestMentionsWantsAWholeName(t *testing.T) {
	for _, c := range []struct {
		message, name string
		want          bool
	}{
		{"Error adding/updating listener(s) bad: x", "bad", true},
		{"Error adding/updating cluster(s) a1: x, b: y", "a", false},
		{"Error adding/updating cluster(s) a1: x, b: y", "b", true},
		{"cluster web.local: unknown", "web", false},
		{"cluster web.", "web", true},
		{"lds_ingress_0.0.0.0_15000: no", "lds_ingress_0.0.0.0_15000", true},
		{"secret spiffe://td/m/n: no", "spiffe://td/m", false},
		{"secret spiffe://td/m/n: no", "spiffe://td/m/n", true},
		{"a1 a", "a", true},
		{"", "a", false},
	} {
		if got := ads.Mentions(c.message, c.name); got != c.want {
			t.Errorf("mentions(%q, %q) = %v", c.message, c.name, got)
		}
	}
}
