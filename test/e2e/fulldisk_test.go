package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Nothing can be written any more, by the server, its signer and the agent. What there is
// goes on, nothing is given out that is not recorded, and all of it resumes by itself.
func TestFullDisksStopRenewalsAndNothingElseUntilThereIsRoom(t *testing.T) {
	const lifetime = 30 * time.Second
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: lifetime, Nodes: []string{"front", "orders"}, Disks: map[string]string{"server": "16m", "agent-data": "256k"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("front", host+"/")
	load := w.StartLoad("front", host+"/", 20)
	token := w.Token()
	before := proxySerials(t, w)
	freeServer, freeAgent := parts.FillDisk(t, w.ServerDir()), parts.FillDisk(t, filepath.Join(w.Dir, "agent-data"))

	if _, err := w.TryApply(meshtest.VirtualNode("late", "")); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("apply: %v", err)
	}
	if h, err := w.TryJoinHost(token); err == nil {
		t.Errorf("%s joined, and nobody has written it down", h.ID)
	}
	eventually(t, lifetime, "a renewal is refused", func() bool { return strings.Contains(w.Agent.Tail(1<<20), "svid not issued") })
	// Nobody looks at anything without a row in the audit trail.
	if out, code := w.CLI("check"); code != 4 || !strings.Contains(out, "full") {
		t.Errorf("check: exit %d: %s", code, out)
	}
	// Nothing has ended yet.
	if r := load.Stop(); r.Failed > 0 || r.Sent < 50 {
		t.Errorf("%d of %d calls failed: %v", r.Failed, r.Sent, r.Reasons)
	}

	freeServer()
	eventually(t, lifetime/2, "what is due is renewed", func() bool {
		now := proxySerials(t, w)
		for id, serial := range before {
			if now[id] == "" || now[id] == serial {
				return false
			}
		}
		return len(before) == 2
	})
	w.Apply(meshtest.VirtualNode("late", ""))
	if _, err := w.TryJoinHost(token); err != nil {
		t.Errorf("the token of the join that failed: %v", err)
	}
	if out, code := w.CLI("check"); code != 0 {
		t.Errorf("check: exit %d: %s", code, out)
	}
	// An agent keeps nothing new: it comes back with a disk that is full.
	w.Agent.Kill()
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	freeAgent()
	recorded := issued(t, w.ServerDir())
	for id, serial := range proxySerials(t, w) {
		if !recorded[serial] {
			t.Errorf("%s has certificate %s, of which there is no record", id, serial)
		}
	}
}
