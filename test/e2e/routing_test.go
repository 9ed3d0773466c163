package e2e

import (
	"testing"
	"time"

	"signet.example/test/meshtest"
)

func canary(v1, v2 int, extra ...string) string {
	docs := []string{
		meshtest.Mesh(), meshtest.VirtualNode("front", "", "shop"), meshtest.VirtualNode("shop-1", ""), meshtest.VirtualNode("shop-2", ""),
		meshtest.Weighted("shop", "shop-1", v1, "shop-2", v2), meshtest.ServiceOfRouter("shop", "shop"),
	}
	return meshtest.Join(append(docs, extra...)...)
}

const shop = "http://shop.test.internal/"

func TestWeightsAreKept(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front", "shop-1", "shop-2"}, Manifests: canary(90, 10)})
	w.AwaitRoute("front", shop)
	share := func(calls int) float64 {
		second := 0
		client := w.Client("front")
		for range calls {
			a, err := meshtest.Do(t, client, "GET", shop)
			if err != nil || a.Status != 200 {
				t.Fatalf("GET %s: %d %v %s", shop, a.Status, err, a.Body)
			}
			if a.Seen.Service == "shop-2" {
				second++
			}
		}
		return float64(second) / float64(calls)
	}
	// 2,000 calls at 10 % have a standard deviation of 0.7 %.
	if s := share(2000); s < 0.07 || s > 0.13 {
		t.Errorf("shop-2 got %.1f %% of the calls, want 10 ± 3", s*100)
	}
	w.Apply(canary(10, 90))
	eventually(t, 5*time.Second, "the new weights", func() bool { return share(40) > 0.5 })
	if s := share(2000); s < 0.87 || s > 0.93 {
		t.Errorf("after apply shop-2 got %.1f %% of the calls, want 90 ± 3", s*100)
	}
}

const slowHealth = `      healthCheck: {protocol: http, path: /healthz, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}
`

// slowHealthApp answers its health check after 400 ms.
func slowHealthApp(name string) meshtest.App {
	return slow{path: "/healthz", by: 400 * time.Millisecond, next: meshtest.Echo(name)}
}

func TestChangesUnderLoadFailNoRequest(t *testing.T) {
	apps := map[string]meshtest.App{"shop-2": slowHealthApp("shop-2")}
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front", "shop-1", "shop-2"}, Apps: apps, Manifests: canary(100, 0)})
	node2 := meshtest.VirtualNode("shop-2", slowHealth)
	router := func(v1, v2 int) string {
		if v1 == 0 {
			return meshtest.Weighted("shop", "shop-2", v2)
		}
		if v2 == 0 {
			return meshtest.Weighted("shop", "shop-1", v1)
		}
		return meshtest.Weighted("shop", "shop-1", v1, "shop-2", v2)
	}
	w.Apply(router(100, 0)) // shop-2's cluster is gone
	repeats := meshtest.Soak(1, 10)
	const brief, long = 700 * time.Millisecond, 2700 * time.Millisecond
	w.AwaitRoute("front", shop)
	load := w.StartLoad("front", shop, 800)
	for range repeats {
		for _, step := range []struct {
			what, manifest string
			run            time.Duration // under load; what is removed goes 2 s after the routes
		}{
			{"the route moves to another cluster", router(0, 100), brief},
			{"and back, the other is removed", router(100, 0), long},
			{"moves to a cluster with a 400 ms health check", meshtest.Join(node2, router(0, 100)), brief},
			{"a cluster changes in place", meshtest.VirtualNode("shop-2", slowHealth+"      timeout: {http: {perRequest: {unit: s, value: 9}}}\n"), brief},
			{"both", router(50, 50), brief},
			{"one is removed", router(100, 0), long},
			{"the health check goes", meshtest.VirtualNode("shop-2", ""), brief},
		} {
			w.Apply(step.manifest)
			time.Sleep(step.run)
			if r := load.Report(); r.Failed > 0 {
				t.Fatalf("%s: %d of %d failed: %v", step.what, r.Failed, r.Sent, r.Reasons)
			}
		}
	}
	for range 3 {
		w.Server.Stop()
		time.Sleep(300 * time.Millisecond)
		w.StartServer()
		time.Sleep(time.Second)
	}
	w.Apply(router(0, 100))
	eventually(t, 10*time.Second, "the change after the restarts", func() bool { return w.Get("front", shop).Seen.Service == "shop-2" })
	r := load.Stop()
	t.Logf("%d requests at 800/s over %d rounds of changes and 3 server restarts: %d failed %v", r.Sent, repeats, r.Failed, r.Reasons)
	if r.Failed > 0 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
}
