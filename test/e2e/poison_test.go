package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/meshtest"
)

// fronts are three hosts, each with a proxy of front: where its application calls out, and
// its admin socket.
type fronts map[string]struct{ egress, admin string }

func startFronts(t *testing.T, w *meshtest.World) fronts {
	t.Helper()
	loopback, err := dev.ReserveLoopback(4, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loopback.Close() })
	w.StartAgent()
	config, err := os.ReadFile(filepath.Join(w.Dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(config), "proxies:\n")
	all := fronts{"front": {w.Nodes["front"].EgressAddress(), filepath.Join(w.AgentDir(), "proxies", "front", "admin.sock")}}
	for i, name := range []string{"front-2", "front-3"} {
		bind, app := loopback.Addresses[2*i], loopback.Addresses[2*i+1]
		serveEcho(t, fmt.Sprintf("%s:%d", app, meshtest.AppPort))
		dir, at := filepath.Join(w.Dir, name), fmt.Sprintf("%s:%d", bind, meshtest.EgressPort)
		own := strings.NewReplacer(w.AgentDir(), dir, filepath.Join(w.Dir, "agent-data"), dir+"-data").Replace(head) + fmt.Sprintf(
			"proxies:\n- {name: %s, mesh: test, virtual_node: front, bind: %s, app: %s, egress: %q, concurrency: 1}\ntoken_file: %s.token\n", name, bind, app, at, dir)
		if err := errors.Join(os.WriteFile(dir+".token", []byte(w.Token()+"\n"), 0o600), os.WriteFile(dir+".yaml", []byte(own), 0o600)); err != nil {
			t.Fatal(err)
		}
		w.Run(name, w.Program(), "agent", "--config", dir+".yaml")
		all[name] = struct{ egress, admin string }{at, filepath.Join(dir, "proxies", name, "admin.sock")}
	}
	return all
}

// picky has the Envoys refuse regular expressions that others take: what they are sent with
// one is good by all that the server knows.
func (f fronts) picky(t *testing.T) {
	t.Helper()
	for _, host := range f {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", host.admin)
		}}}
		resp, err := client.Post("http://envoy/runtime_modify?re2.max_program_size.error_level=40", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("runtime_modify: %s %v", resp.Status, err)
		}
	}
}

// refused are the hosts whose Envoy refused a configuration of routes.
func (f fronts) refused(t *testing.T) (names []string) {
	t.Helper()
	for name, host := range f {
		if regexp.MustCompile(`(?m)\.rds\..*\.update_rejected: [1-9]`).Match(adminAt(t, host.admin, "/stats?filter=update_rejected")) {
			names = append(names, name)
		}
	}
	return names
}

// TestWhatEachHostsEnvoyRefusesTakesNothingFromAny: three hosts with one virtual node's proxies
// try one after the other what the server takes for good (R9), since a refusal is its host's
// alone; all go on with what they had, and operators see whose it was, who waits for that at once.
func TestWhatEachHostsEnvoyRefusesTakesNothingFromAny(t *testing.T) {
	binding := func(name string) string {
		return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: hosts, mesh: test, virtualNode: front, selectors: [\"signet:proxy:%s\"]}\n", name, name)
	}
	router := func(path string) string {
		return strings.Replace(meshtest.Weighted("orders", "orders", 1), "match: {prefix: /}", `match: {path: {regex: "`+path+`"}}`, 1)
	}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, NoAgent: true,
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("orders", ""),
			meshtest.ServiceOfRouter("orders", "orders"), router("/a.*"), binding("front-2"), binding("front-3")),
	})
	hosts := startFronts(t, w)
	calls := func(path string, want int) {
		t.Helper()
		for name, f := range hosts {
			eventually(t, 20*time.Second, name+" calls "+path, func() bool {
				status, err := rawCall(f.egress, path)
				return err == nil && status == want
			})
		}
	}
	calls("/a", 200)
	synced := func(want api.ProxyStatus_Config) bool {
		n := 0
		for _, p := range w.Proxies() {
			if p.GetVirtualNode().GetName() == "front" && p.GetConfig() == want {
				n++
			}
		}
		return n == len(hosts)
	}
	eventually(t, 20*time.Second, "three hosts", func() bool { return synced(api.ProxyStatus_SYNCED) })

	// whoever applies waits for what comes of it.
	apply := func(router string, wantCode int, want string) {
		t.Helper()
		file := filepath.Join(w.Dir, "router.yaml")
		if err := os.WriteFile(file, []byte(router), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := w.CLI("apply", "-f", file, "--wait"); code != wantCode || !strings.Contains(out, want) {
			t.Errorf("apply --wait, exit %d, want %d and %q:\n%s", code, wantCode, want, out)
		} else if n := strings.Count(out, "RE2 program size"); wantCode != 0 && n != len(hosts) {
			t.Errorf("it names %d refusals:\n%s", n, out)
		}
	}
	hosts.picky(t)
	apply(router("/a[0-9]{60}|/b.*"), 1, "signet: 3 proxies refused it\nhint: it is stored as revision ")
	apply(router("/a[0-9]{60}|/b.*"), 1, "signet: 3 proxies refused it\nhint: it was stored before") // as a job that is run once more does
	eventually(t, 20*time.Second, "each of the three is told not to have it", func() bool { return synced(api.ProxyStatus_REJECTED) })
	time.Sleep(2 * time.Second) // longer than the others would wait for the first
	if names := hosts.refused(t); len(names) != len(hosts) {
		t.Errorf("the Envoys of %v refused it, and each should have tried it", names)
	}
	for name, f := range hosts {
		if status, err := rawCall(f.egress, "/a"); err != nil || status != 200 {
			t.Errorf("%s does not go on: %d %v", name, status, err)
		}
	}
	out, _ := w.CLI("proxies", "--node", "front")
	if strings.Count(out, "RE2 program size") != 3 {
		t.Errorf("signet proxies:\n%s", out)
	}
	if out, code := w.CLI("check"); code == 0 || strings.Count(out, "RE2 program size") < 3 || !strings.Contains(out, "SIG004") {
		t.Errorf("signet check, exit %d:\n%s", code, out)
	}

	apply(router("/b.*"), 0, "\n3 proxies have it\n")
	for name, f := range hosts {
		if status, err := rawCall(f.egress, "/b"); err != nil || status != 200 {
			t.Errorf("%s has not what it is said to have: %d %v", name, status, err)
		}
	}
	calls("/a", 404)
	eventually(t, 20*time.Second, "all have what replaced it", func() bool { return synced(api.ProxyStatus_SYNCED) })

	// Who goes back, or deletes, waits by the same rules.
	out, _ = w.CLI("history", "virtualrouter", "orders")
	first := regexp.MustCompile(`(?m)^([0-9]+) .*created virtualrouter`).FindStringSubmatch(out)
	if first == nil {
		t.Fatalf("signet history:\n%s", out)
	}
	if out, code := w.CLI("rollback", first[1], "--wait"); code != 0 || !strings.Contains(out, "\n3 proxies have it\n") {
		t.Errorf("rollback --wait, exit %d:\n%s", code, out)
	}
	for name, f := range hosts {
		if status, err := rawCall(f.egress, "/a"); err != nil || status != 200 {
			t.Errorf("%s has not what it went back to: %d %v", name, status, err)
		}
	}
	if out, code := w.CLI("delete", "--wait", "binding/front-2", "binding/front-3", "binding/front-proxy", "virtualnode/test/front"); code != 0 || !strings.Contains(out, "\nno proxy that it concerns is reported\n") {
		t.Errorf("delete --wait, exit %d:\n%s", code, out)
	}
}
