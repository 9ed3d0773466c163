package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
)

// TestAStoppedProxyCarriesConnectionsUntilTheyEnd: drain_time is one second here, and the
// time that they have the default, 15 s.
func TestAStoppedProxyCarriesConnectionsUntilTheyEnd(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "store"}, Policy: map[string]string{"store.rego": storePolicy},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "store"), storeNode(""), meshtest.ServiceOfNode("store", "store")),
	})
	startSpeaker(t, w.Nodes["store"].App)
	at := wayTo(t, w, "web")
	w.Await("web speaks to the store", 30*time.Second, func() error { return hungUp(speak(at)) })
	open, err := speak(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = open.Close() }) // closed below

	file := filepath.Join(w.Dir, "agent.yaml")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	without := regexp.MustCompile(`(?m)^- \{name: store.*\n`).ReplaceAll(config, nil)
	if err := os.WriteFile(file, without, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(w.Agent.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	state := func() api.ProxyStatus_State { return w.ProxyStates()["store"] }
	eventually(t, 10*time.Second, "it drains", func() bool { return state() == api.ProxyStatus_DRAINING })
	for began := time.Now(); time.Since(began) < 4*time.Second; time.Sleep(200 * time.Millisecond) {
		if got, err := exchange(open, "x", 1); err != nil || got != "x" {
			t.Fatalf("after %s: %q, %v", time.Since(began), got, err)
		}
	}
	if state() != api.ProxyStatus_DRAINING {
		t.Errorf("it is %s", api.Word(state()))
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it ends with its last connection", func() bool { return state() == api.ProxyStatus_UNSPECIFIED })
}
