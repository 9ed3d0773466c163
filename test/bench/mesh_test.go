//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// TestBenchMemory measures server, signer, agent and authz with a small mesh at rest.
func TestBenchMemory(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front", "back"}, Manifests: meshtest.Join(meshtest.Mesh(),
		meshtest.VirtualNode("front", "", "back"), meshtest.VirtualNode("back", ""), meshtest.ServiceOfNode("back", "back"))})
	for range 200 {
		w.Get("front", "http://"+meshtest.HostOf("back")+"/")
	}
	server, agent := w.Server.PID(), w.Agent.PID()
	cpuBefore := cpu(t, server) + cpu(t, agent)
	const idle = 20 * time.Second
	time.Sleep(idle)
	busy := float64(cpu(t, server)+cpu(t, agent)-cpuBefore) / float64(idle) * 100
	mib := func(pid int) string { return fmt.Sprintf("%.0f MiB", rss(t, pid)) }
	report(t, "Memory at rest, two nodes", []row{
		{"server", mib(server), "SPIRE server, fresh: 92 MiB (measured apart)", "", ""},
		{"signer", mib(child(t, server, "signer")), "", "", ""},
		{"agent", mib(agent), "SPIRE agent, fresh: 63 MiB", "", ""},
		{"authz", mib(child(t, agent, "authz")), "OPA embedded, identity policy: 32 MiB", "", ""},
		{"server and agent, idle CPU", fmt.Sprintf("%.2f %% of a core", busy), "", "", ""},
	})
}

// TestBenchExplain measures the way from an id to its reason, by the command line.
func TestBenchExplain(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "back"}, Manifests: meshtest.Join(meshtest.Mesh(),
			meshtest.VirtualNode("front", "", "back"), meshtest.VirtualNode("back", ""), meshtest.ServiceOfNode("back", "back")),
		Policy: map[string]string{"p.rego": "package signet.authz\n\nallow contains \"x\" if input.request.path == \"/x\"\n"},
	})
	var took []time.Duration
	w.Await("a decision", 20*time.Second, func() error { // the proxies find each other first
		if a := w.Get("front", "http://"+meshtest.HostOf("back")+"/"); a.DecisionID == "" {
			return fmt.Errorf("answered %d %s", a.Status, a.Body)
		}
		return nil
	})
	for range 20 {
		a := w.Get("front", "http://"+meshtest.HostOf("back")+"/")
		began := time.Now()
		if out, code := w.CLI("explain", a.DecisionID); code != 0 {
			t.Fatalf("explain: %s", out)
		}
		took = append(took, time.Since(began))
	}
	report(t, "Why was it denied", []row{
		{"signet explain, whole command, p50 of 20", ms(percentile(took, 0.5)), "", "", "≤ 1 s"},
		{"the slowest of 20", ms(percentile(took, 0.99)), "", "", "≤ 1 s"},
	})
}

// TestBenchExplainFullDay measures the way from caller, callee and time to the reason and what to
// do, where the agent has kept all that it has room for.
func TestBenchExplainFullDay(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{})
	before := rss(t, w.Agent.PID())
	w.Agent.Stop()
	day := w.FillDay()
	w.StartAgentWithoutToken()
	w.AwaitDay(day)
	var took []time.Duration
	for i, kind := range day.Kinds {
		for _, since := range []string{"24h", "10m"} {
			found, all := w.Explain(day.Callers[i%len(day.Callers)], day.Nodes[i%len(day.Nodes)], kind.Name, "--since", since)
			if !found {
				t.Fatalf("%s is not found", kind.Name)
			}
			took = append(took, all)
		}
	}
	report(t, "Explained without an id: 20 kinds, a full day of 1,000 answers a second", []row{
		{"signet explain --from --to --since, whole command, p50 of 40", ms(percentile(took, 0.5)), "", "", "≤ 1 s"},
		{"the slowest of 40", ms(percentile(took, 0.99)), "", "", "≤ 1 s"},
		{"the agent's memory beyond that of an empty one", fmt.Sprintf("%.0f MiB", rss(t, w.Agent.PID())-before), "", "", "≤ 64 MiB"},
	})
}

// child of a process, by an argument of its command line.
func child(t *testing.T, parent int, argument string) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))       // it may have ended
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // as above
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) && strings.Contains(string(cmdline), "\x00"+argument+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("process %d has no child %q", parent, argument)
	return 0
}
