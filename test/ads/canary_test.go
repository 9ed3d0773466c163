package ads_test

import (
	"testing"
	"time"

	"signet.example/ads"
	"signet.example/test/envoytest"
)

// What only Envoy can refuse is sent to one of three replicas; the others serve on and
// never see it, and what else changed with it reaches all.
func TestOfThreeReplicasOneSeesWhatEnvoyRefuses(t *testing.T) {
	w := newWorld(t, false)
	envoys := []*envoytest.Envoy{w.envoy}
	for range 2 {
		envoys = append(envoys, envoytest.Start(t, envoytest.Config{NodeID: "n", Cluster: "c", ADS: w.socket, DrainTime: drainTime}))
	}
	b := envoytest.StartBackend(t, "b", 0)
	one, two := cluster(t, "one", b, nil), cluster(t, "two", b, nil)
	rest := concat(one, two, []*ads.Resource{listener(t, "l", "r", nil), listener(t, "m", "s", nil)})
	w.publish(concat(rest, []*ads.Resource{routes(t, "r", "one"), routes(t, "s", "one")})...)
	var runs []*envoytest.Run
	for _, e := range envoys {
		e.WaitReady(t)
		(&world{t: t, envoy: e}).url("m")
		runs = append(runs, rated(w, (&world{t: t, envoy: e}).url("l"), 100))
	}
	all := func(what string, ok func() bool) time.Duration {
		t.Helper()
		begun := time.Now()
		w.envoy.Wait(t, what, ok)
		return time.Since(begun)
	}
	all("all have what is first", w.view.Answered)
	w.publish(concat(rest, []*ads.Resource{routes(t, "r", "one", "two"), routes(t, "s", "one")})...)
	t.Logf("three replicas, one after the other, had a good change after %v", all("all have what is good", func() bool {
		_, ok := w.view.Synced()
		return ok
	}))
	for range times(3) {
		w.publish(concat(rest, []*ads.Resource{badRoutes(t, "r"), routes(t, "s", "two")})...)
		took := all("one refused it, and the rest of the change is everywhere", func() bool {
			_, n, _ := w.view.Acked(ads.RouteType, "s")
			return n == len(envoys) && w.view.Answered() && len(w.view.Rejected()) == 1
		})
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		t.Logf("refused by one and everywhere known after %v", took)
		w.publish(concat(rest, []*ads.Resource{routes(t, "r", "one"), routes(t, "s", "one")})...)
		all("all have what mends it", func() bool {
			_, ok := w.view.Synced()
			return ok && len(w.view.Rejected()) == 0
		})
	}
	refused := int64(0)
	for i, e := range envoys {
		refused += e.Stats(t, "http.in.rds.r.update_rejected")["http.in.rds.r.update_rejected"]
		spotless(w, runs[i])
	}
	if want := int64(times(3)); refused != want {
		t.Errorf("Envoys refused %d times what was sent %d times to one of three", refused, want)
	}
}
