package e2e

import (
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// A host that is far from its servers: 300 ms there and back, and one packet in twenty
// is lost. It joins, renews and is told of changes, later and not less.
func TestAHostThatIsFarAndLosesPacketsIsServedAsAnyOther(t *testing.T) {
	const lifetime = 20 * time.Second
	wire := meshtest.Wire{Delay: 150 * time.Millisecond, Loss: 0.05}
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: lifetime, Nodes: []string{"front", "orders", "other"},
		Through: func(server string) string { return wire.Through(t, server) },
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", ""), meshtest.VirtualNode("other", ""),
			meshtest.Weighted("orders", "orders", 1), meshtest.ServiceOfRouter("orders", "orders")),
	})
	w.AwaitRoute("front", host+"/")
	before := proxySerials(t, w)
	load, begun := w.StartLoad("front", host+"/", 20), time.Now()
	for round := range meshtest.Soak(2, 400) {
		to := []string{"other", "orders"}[round%2]
		w.Apply(meshtest.Weighted("orders", to, 1))
		took := eventually(t, 20*time.Second, "the change is there", func() bool { return w.Get("front", host+"/").Seen.Service == to })
		t.Logf("a change was there after %s", took.Round(time.Millisecond))
	}
	took := eventually(t, lifetime, "rotation", func() bool {
		now := proxySerials(t, w)
		for id, serial := range before {
			if now[id] == "" || now[id] == serial {
				return false
			}
		}
		return len(before) == 3
	})
	t.Logf("each proxy has another certificate %s later", took.Round(time.Millisecond))
	time.Sleep(time.Until(begun.Add(4 * time.Second))) // changes and rotation may come at once
	if r := load.Stop(); r.Failed > 0 || r.Sent < 50 {
		t.Errorf("%d of %d calls failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	if out, code := w.CLI("check"); code != 0 {
		t.Errorf("check: exit %d\n%s", code, out)
	}
}
