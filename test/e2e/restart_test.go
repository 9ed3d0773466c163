package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// patient answers with its name, after ?ms= milliseconds.
func patient(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ms, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		_, _ = w.Write([]byte(name)) // the caller may have gone
	})
}

func replicas(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: hosts, mesh: test, virtualNode: orders, selectors: [\"signet:proxy:%s\"]}\n", n, n)
	}
	return b.String()
}

// Each round takes away a proxy that serves and adds another one for the same
// virtual node, with requests in flight that last nearly as long as the draining.
func TestAReloadThatAddsAndTakesAwayProxiesFailsNoRequest(t *testing.T) {
	spare, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() }) // the processes that used them have ended
	w := meshtest.Start(t, meshtest.Options{
		NoAgent: true, Nodes: []string{"front", "orders"}, Apps: map[string]meshtest.App{"orders": patient("orders")},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")) + replicas("one", "two"),
	})
	w.StartAgent()
	config := filepath.Join(w.Dir, "agent.yaml")
	base, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	// reload writes the configuration with a replica of orders beside front and orders.
	reload := func(replica, bind string) {
		t.Helper()
		text := fmt.Sprintf("%s- {name: %s, mesh: test, virtual_node: orders, bind: %s, app: %s, concurrency: 1}\n", base, replica, bind, w.Nodes["orders"].App)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(w.Agent.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		w.Await("the replica "+replica+" alone", 20*time.Second, func() error {
			if states := w.ProxyStates(); states[replica] != api.ProxyStatus_READY || len(states) != 3 {
				return fmt.Errorf("%v", states)
			}
			return nil
		})
	}
	w.AwaitProxies()
	reload("one", spare.Addresses[0])
	w.AwaitRoute("front", host+"/orders")
	pid := w.Agent.PID()
	load := envoytest.Load{
		URL: host + "/orders", Rate: 200, NewConnections: 0.02, Slow: 0.05, SlowFor: 800 * time.Millisecond,
		Proxy: &url.URL{Scheme: "http", Host: w.Nodes["front"].EgressAddress()},
	}.Start(t.Context())
	for round := range meshtest.Soak(2, 60) {
		time.Sleep(time.Second)
		reload([]string{"two", "one"}[round%2], spare.Addresses[(round+1)%2])
	}
	time.Sleep(time.Second)
	r := load.Stop()
	t.Logf("%d requests, %d failed", r.Sent, r.Failed)
	if r.Failed > 0 || r.Sent < 500 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	if strings.Contains(w.Agent.Tail(1<<20), "have not taken its endpoint away") {
		t.Error("a proxy was ended before its callers had learned of it")
	}
	// What cannot be reloaded is named, and all of it refused.
	if err := os.WriteFile(config, []byte(strings.Replace(string(base), "drain_time: 1s", "drain_time: 2s\nlog_level: error", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the refusal", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), "drain_time cannot be changed by a reload")
	})
	if states := w.ProxyStates(); len(states) != 3 || w.Agent.PID() != pid || !w.Agent.Alive() {
		t.Errorf("after a refused reload: %v", states)
	}
	// The log level goes with a good one.
	if err := os.WriteFile(config, []byte(string(base)+"log_level: debug\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "its word", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), `msg="configuration reloaded" log_level=DEBUG`)
	})
}

// A supervisor starts a killed agent again: without a token, it is the same agent
// and its proxies serve.
func TestAKilledAgentServesAgainAsTheSameOneWithoutAToken(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")),
	})
	w.AwaitRoute("front", host+"/orders")
	before := agents(t, w)
	kills := meshtest.Soak(20, 200)
	var took []time.Duration
	for n := range kills {
		if n%3 == 2 { // in the middle of its start, too
			time.Sleep(time.Duration(n) * 7 * time.Millisecond)
		}
		w.Agent.Kill()
		begun := time.Now()
		w.Agent = w.Run("agent", parts.Signet(t), "agent", "--config", filepath.Join(w.Dir, "agent.yaml"))
		if n%3 == 1 {
			continue // killed again before it serves
		}
		for {
			a, err := meshtest.Do(t, w.Client("front"), "GET", host+"/orders")
			if err == nil && a.Status == http.StatusOK {
				break
			}
			if time.Since(begun) > 20*time.Second || !w.Agent.Alive() {
				t.Fatalf("kill %d: not served %s later: %v", n, time.Since(begun), err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("killed %d times, served again after %s (median), %s (worst); the goal is 2 s", kills, took[len(took)/2], took[len(took)-1])
	if after := agents(t, w); len(before) != 1 || len(after) != 1 {
		t.Errorf("the server has %v, and had %v", after, before)
	}
	if out, _ := w.CLI("check", "--socket", w.Socket()); strings.Contains(out, "SIG020") {
		t.Errorf("a restart was taken for a copy:\n%s", out)
	}
}

// An upgrade: the agent is stopped, which drains its proxies, and the new program
// is started. Callers have another replica meanwhile.
func TestAnAgentThatIsUpgradedFailsNoRequestOfCallersThatHaveAnotherReplica(t *testing.T) {
	spare, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() }) // the processes that used them have ended
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, Apps: map[string]meshtest.App{"orders": patient("orders")},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.ServiceOfNode("orders", "orders")) + replicas("second"),
	})
	config, token := anotherHost(t, w, "second", fmt.Sprintf("- {name: second, mesh: test, virtual_node: orders, bind: %s, app: %s, concurrency: 1}\n", spare.Addresses[0], w.Nodes["orders"].App))
	start := func() *meshtest.Process {
		p := w.Run("second", parts.Signet(t), "agent", "--config", config)
		eventually(t, 20*time.Second, "the second host serves", func() bool { return w.ProxyStates()["second"] == api.ProxyStatus_READY })
		return p
	}
	second := start()
	if err := os.Remove(token); err != nil { // nobody needs it any more
		t.Fatal(err)
	}
	w.AwaitRoute("front", host+"/orders")
	load := envoytest.Load{
		URL: host + "/orders", Rate: 200, NewConnections: 0.02, Slow: 0.05, SlowFor: 800 * time.Millisecond,
		Proxy: &url.URL{Scheme: "http", Host: w.Nodes["front"].EgressAddress()},
	}.Start(t.Context())
	for range meshtest.Soak(2, 20) {
		time.Sleep(500 * time.Millisecond)
		second.Stop()
		second = start()
	}
	time.Sleep(500 * time.Millisecond)
	r := load.Stop()
	t.Logf("%d requests, %d failed", r.Sent, r.Failed)
	if r.Failed > 0 || r.Sent < 400 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	if known := agents(t, w); len(known) != 2 {
		t.Errorf("the server knows %v", known)
	}
}
