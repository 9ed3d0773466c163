package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/meshtest"
)

// TestAnApplyOfEnforceEndsWhenEachAgentEnforces: two hosts with a proxy of shop each. When the command has
// ended both deny, at the first call; while the agent of one is stopped the command names its proxy, and the
// other one denies.
func TestAnApplyOfEnforceEndsWhenEachAgentEnforces(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "shop"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "shop"), meshtest.VirtualNode("shop", ""), meshtest.ServiceOfNode("shop", "shop"),
			optionsManifest("MeshOptions", "test", "observe"),
			"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: second}\nspec: {group: hosts, mesh: test, virtualNode: shop, selectors: [\"signet:proxy:second\"]}\n",
			"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: shop}\nspec: {listeners: [{port: 8080, ingress: [{name: unmoved, ranges: [127.0.0.0/8]}]}]}\n"),
		Policy: map[string]string{"reads.rego": "package signet.authz\n\nallow contains \"health\" if input.request.path == \"/health\"\n"},
	})
	spare, err := dev.ReserveLoopback(2, meshtest.AppPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spare.Close() })
	serveEcho(t, fmt.Sprintf("%s:%d", spare.Addresses[1], meshtest.AppPort))
	config, _ := anotherHost(t, w, "second", fmt.Sprintf("- {name: second, mesh: test, virtual_node: shop, bind: %s, app: %s, concurrency: 1}\n", spare.Addresses[0], spare.Addresses[1]))
	other := w.Run("second", w.Program(), "agent", "--config", config)
	hosts := map[string]string{"shop": w.Nodes["shop"].Bind, "second": spare.Addresses[0]}
	plain := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	denied := func(host string) bool {
		resp, err := plain.Get(fmt.Sprintf("http://%s:%d/orders", hosts[host], meshtest.AppPort))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusForbidden
	}
	eventually(t, 60*time.Second, "both are there, and let through what the policy denies", func() bool {
		ready := 0
		for _, p := range w.Proxies() {
			if p.GetState() == api.ProxyStatus_READY && p.GetConfig() == api.ProxyStatus_SYNCED {
				ready++
			}
		}
		for host := range hosts {
			resp, err := plain.Get(fmt.Sprintf("http://%s:%d/orders", hosts[host], meshtest.AppPort))
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return false
			}
		}
		return ready == 3
	})
	file := filepath.Join(w.Dir, "options.yaml")
	apply := func(authorization string, wait string) (string, int) {
		if err := os.WriteFile(file, []byte(optionsManifest("MeshOptions", "test", authorization)), 0o600); err != nil {
			t.Fatal(err)
		}
		return w.CLI("apply", "-f", file, "--wait="+wait)
	}

	for range 3 { // what another time would have come a moment later
		if out, code := apply("enforce", "60s"); code != 0 || !strings.Contains(out, "3 proxies have it") {
			t.Fatalf("exit %d\n%s", code, out)
		}
		for host := range hosts {
			if !denied(host) {
				t.Errorf("the proxy of %s lets through what the policy denies, and apply --wait has ended", host)
			}
		}
		if out, code := apply("observe", "60s"); code != 0 || !strings.Contains(out, "3 proxies have it") {
			t.Fatalf("exit %d\n%s", code, out)
		}
		for host := range hosts {
			if denied(host) {
				t.Errorf("the proxy of %s denies, and apply --wait of observe has ended", host)
			}
		}
	}

	if err := unix.Kill(other.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(other.PID(), unix.SIGCONT) }) // it may run again
	const why = "proxy second of test/shop at agent "
	out, code := apply("enforce", "15s")
	if code != 1 || !strings.Contains(out, why) || !strings.Contains(out, "2 proxies have it") || !strings.Contains(out, "1 proxy did not answer within 15s") {
		t.Errorf("with one agent stopped: exit %d\n%s", code, out)
	}
	if !denied("shop") || denied("second") {
		t.Errorf("shop denies: %v; the one whose agent is stopped: %v", denied("shop"), denied("second"))
	}
	if out, code := apply("enforce", "1s"); code != 1 || !strings.Contains(out, why) { // as a job that is run again does
		t.Errorf("applied again: exit %d\n%s", code, out)
	}
	if err := unix.Kill(other.PID(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if out, code := apply("enforce", "60s"); code != 0 {
		t.Errorf("when it goes on: exit %d\n%s", code, out)
	}
	if !denied("second") {
		t.Error("apply --wait has ended, and the second host lets through what the policy denies")
	}
}
