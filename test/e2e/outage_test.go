package e2e

import (
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

func TestTheMeshGoesOnWithoutItsServer(t *testing.T) {
	lifetime := meshtest.Soak(time.Minute, time.Hour)
	gone := meshtest.Soak(30*time.Second, 45*time.Minute)
	p := newIDP(t, "k1")
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: lifetime, Nodes: []string{"front", "batch", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("batch", "", "orders"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders"), p.manifest(t)),
		Policy: map[string]string{"orders.rego": orders, "orders_test.rego": ordersTest},
	})
	w.AwaitRoute("front", host+"/orders")
	w.AwaitRoute("batch", host+"/orders")
	before := proxySerials(t, w)
	envoy := proxyPID(t, w, "orders")
	load := w.StartLoad("front", host+"/orders", 50)
	w.KillServer()
	began := time.Now()

	time.Sleep(gone / 3)
	// An Envoy that starts now gets identity and routing from the agent alone.
	if r := load.Stop(); r.Failed > 0 {
		t.Errorf("before the proxy was killed %d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	if err := syscall.Kill(envoy, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 20*time.Second, "a new Envoy serves", func() bool {
		a, err := meshtest.Do(t, w.Client("front"), "GET", host+"/orders")
		return err == nil && a.Status == 200
	})
	t.Logf("a killed Envoy was replaced and served again after %s, without a server", took)
	load = w.StartLoad("front", host+"/orders", 50)
	// Decisions go on, both ways.
	if a := w.Get("batch", host+"/orders"); a.Status != 403 || a.Denied != "policy" {
		t.Errorf("batch without a server: %d %q", a.Status, a.Denied)
	}
	if a := w.Get("front", host+"/account", "Authorization", "Bearer "+p.token(t, claims())); a.Status != 200 {
		t.Errorf("a customer without a server: %d %s", a.Status, a.Body)
	}
	time.Sleep(gone - time.Since(began))
	r := load.Stop()
	t.Logf("%s without a server at a lifetime of %s: %d requests, %d failed", time.Since(began).Round(time.Second), lifetime, r.Sent, r.Failed)
	if r.Failed > 0 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	w.StartServer()
	took = eventually(t, lifetime/2+30*time.Second, "rotation by itself", func() bool {
		now := proxySerials(t, w)
		for id, serial := range before {
			if now[id] == "" || now[id] == serial {
				return false
			}
		}
		return len(now) == len(before)
	})
	t.Logf("every proxy had a new certificate %s after the server was back", took.Round(time.Millisecond))
}

func proxyPID(t *testing.T, w *meshtest.World, name string) int {
	t.Helper()
	for _, p := range w.Proxies() {
		if p.GetName() == name {
			return int(p.GetPid())
		}
	}
	t.Fatalf("the agent reports no proxy %s", name)
	return 0
}
