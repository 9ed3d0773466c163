package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// metrics of a server or agent, by name with labels.
func metrics(t *testing.T, w *meshtest.World, dir string) map[string]float64 {
	t.Helper()
	addresses, err := w.Addresses(dir)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + addresses.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(signet_[^ ]+) (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		out[m[1]] = v
	}
	return out
}

func TestRotationIsWatched(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Lifetime: 20 * time.Second, Nodes: []string{"front", "back"}, Manifests: meshtest.Join(meshtest.Mesh(),
		meshtest.VirtualNode("front", "", "back"), meshtest.VirtualNode("back", ""), meshtest.ServiceOfNode("back", "back"))})
	const id = `{spiffe_id="spiffe://test.example/test/front"}`
	first := metrics(t, w, w.AgentDir())
	for _, name := range []string{"not_after", "renew_due", "last_rotation"} {
		if first["signet_agent_svid_"+name+"_timestamp_seconds"+id] == 0 {
			t.Errorf("no %s of front in the agent's metrics", name)
		}
	}
	if due, end := first["signet_agent_svid_renew_due_timestamp_seconds"+id], first["signet_agent_svid_not_after_timestamp_seconds"+id]; due >= end {
		t.Errorf("renewal is due at %.0f, after the end at %.0f", due, end)
	}
	eventually(t, 15*time.Second, "the gauge moves with the rotation", func() bool {
		return metrics(t, w, w.AgentDir())["signet_agent_svid_not_after_timestamp_seconds"+id] > first["signet_agent_svid_not_after_timestamp_seconds"+id]
	})
	eventually(t, 5*time.Second, "what Envoy serves is read back", func() bool {
		return metrics(t, w, w.AgentDir())[`signet_agent_served_fingerprint_match{proxy="front"}`] == 1
	})
	if s := metrics(t, w, w.ServerDir()); s["signet_server_issuing_ca_not_after_timestamp_seconds"] == 0 || s[`signet_server_agents{state="connected"}`] != 1 {
		t.Errorf("server's metrics: %v", s)
	}
	// The table says the same: expiry and next renewal of each identity.
	out, code := w.CLI("certs")
	if code != 0 || !strings.Contains(out, "spiffe://test.example/test/front") || !strings.Contains(out, "NEXT RENEWAL") {
		t.Errorf("certs: exit %d\n%s", code, out)
	}
}

func TestCheckNamesWhatIsWrongAndTheCommandThatFixesIt(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", ""))})
	if out, code := w.CLI("check"); code != 0 {
		t.Errorf("a sound mesh: exit %d\n%s", code, out)
	}
	w.Agent.Stop()
	eventually(t, 10*time.Second, "the lost agent is found", func() bool {
		out, code := w.CLI("check")
		return code == 3 && strings.Contains(out, "SIG013") && strings.Contains(out, "SIG001") && strings.Contains(out, "cause:") && strings.Contains(out, "fix:") && strings.Contains(out, "signet token create --group hosts")
	})
	// A policy that fails its own test is not served, and says so.
	w.CommitPolicy(map[string]string{"broken_test.rego": "package signet.authz_test\n\ntest_wrong if 1 == 2\n"})
	if out, code := w.CLI("policy", "sync"); code != 1 || !strings.Contains(out, "test_wrong") {
		t.Errorf("sync of a policy whose test fails: exit %d\n%s", code, out)
	}
	out, code := w.CLI("check", "-o", "json")
	if code != 3 {
		t.Errorf("an error is found, and the exit code is %d", code)
	}
	if !strings.Contains(out, "test_wrong") {
		t.Errorf("check does not tell the failing policy:\n%s", out)
	}
	if fixes := regexp.MustCompile(`"fix": "signet [a-z]+`).FindAllString(out, -1); len(fixes) < 2 {
		t.Errorf("findings have no commands that fix them: %s", fmt.Sprint(fixes))
	}
}
