//go:build yesterday

package yesterday

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/api/admin"
	"signet.example/test/meshtest"
)

// TestTheReleaseBeforeItselfAndTodaysWorkTogether has its binary, which `make yesterday`
// builds out of git's history, in the place of the agent and then of the server.
func TestTheReleaseBeforeItselfAndTodaysWorkTogether(t *testing.T) {
	old := os.Getenv("SIGNET_YESTERDAY")
	for _, c := range []struct{ server, agent string }{{"", old}, {old, ""}} {
		t.Run(fmt.Sprintf("server=%s,agent=%s", filepath.Base(c.server), filepath.Base(c.agent)), func(t *testing.T) {
			w := meshtest.Prepare(t, meshtest.Options{TrustDomain: trustDomain, Nodes: []string{"front", "orders"}})
			unpack(t, "whole.tar.gz", w.Dir)
			of := func(program string) string {
				if program == "" {
					return w.Program()
				}
				return program
			}
			w.Server = w.Run("server", of(c.server), "server", "--config", config(t, w, "server.yaml"))
			w.Await("server", 20*time.Second, func() error { _, err := w.Addresses(w.ServerDir()); return err })
			client, conn, err := admin.Dial(w.Socket())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			w.Admin = client
			if err := os.Mkdir(filepath.Join(w.Dir, "logs"), 0o700); err != nil {
				t.Fatal(err)
			}
			w.Agent = w.Run("agent", of(c.agent), "agent", "--config", config(t, w, "agent.yaml"))
			w.AwaitAgent()
			w.AwaitRoute("front", "http://orders.test.internal/orders")
			if got := w.Get("front", "http://orders.test.internal/orders"); got.Status != 200 || got.Seen.Caller() != "spiffe://"+trustDomain+"/test/front" {
				t.Errorf("orders: %d by %q", got.Status, got.Seen.Caller())
			}
			denied := w.Get("front", "http://orders.test.internal/admin")
			if out, _ := w.CLI("explain", denied.DecisionID); denied.Status != 403 || !strings.Contains(out, "nobody reaches the admin pages") {
				t.Errorf("admin: %d, explained as\n%s", denied.Status, out)
			}
			if out, code := w.CLI("check"); code != 3 || strings.Contains(out, "SIG008") {
				t.Errorf("check: %d\n%s", code, out) // the policy's repository is not here, and nothing else is wrong
			}
		})
	}
}
