package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/dev"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// A30, with two hosts that serve one virtual node.
func TestABannedHostIsShutOutAndTheOthersGoOn(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders")),
	})
	other := startHost(t, w)
	w.Await("the other host serves", 60*time.Second, func() error {
		if by := servedBy(t, w); by != "second" {
			return fmt.Errorf("%q answers", by)
		}
		return nil
	})
	load := w.StartLoad("front", host+"/orders", 50)
	time.Sleep(time.Second) // of calls to both

	// An agent of the test's own does not obey, and tries on.
	hostile, witness := w.JoinHost(), w.JoinHost()
	csr := meshtest.CSR(t, meshtest.Key(t))
	if _, err := hostile.Issue(t.Context(), "binding/orders-proxy", csr); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, id := range []string{other.id, hostile.ID} {
		if out, code := w.CLI("ban", id, "--reason", "lost"); code != 0 || !strings.Contains(out, "banned") {
			t.Fatalf("exit %d: %s", code, out)
		}
	}
	if _, err := hostile.Issue(t.Context(), "binding/orders-proxy", csr); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a banned agent asks for a certificate: %v", err)
	}
	bans := map[string]bool{}
	for _, b := range witness.Resources(ads.BanType) {
		bans[b.Name] = true
	}
	for _, id := range []string{other.id, hostile.ID} {
		if !bans["spiffe://test.example/signet/agent/"+id] {
			t.Errorf("the other agents are not told of %s: %v", id, bans)
		}
	}
	select {
	case <-other.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the banned agent goes on")
	}
	t.Logf("the banned agent and its Envoy ended %s after the ban", time.Since(began).Round(time.Millisecond))
	if out, code := other.output.String(), other.cmd.ProcessState.ExitCode(); code != 5 || !strings.Contains(out, "is banned") || !strings.Contains(out, "hint: ") {
		t.Errorf("exit %d, want 5 and what to do:\n%s", code, out)
	}
	if conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", other.bind, meshtest.AppPort), time.Second); err == nil {
		_ = conn.Close()
		t.Error("its Envoy still listens")
	}
	for range 20 {
		if by := servedBy(t, w); by != "orders" {
			t.Errorf("a call is answered by %q", by)
		}
	}
	r := load.Stop()
	t.Logf("%d requests while a host was banned, %d failed", r.Sent, r.Failed)
	if r.Failed > 0 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
	if serials := proxySerials(t, w); !w.Agent.Alive() || len(serials) != 2 {
		t.Errorf("the other host was touched: %v", serials)
	}
}

// servedBy reports whose application answers a call.
func servedBy(t *testing.T, w *meshtest.World) string {
	t.Helper()
	return w.Get("front", host+"/orders").Seen.Service
}

// secondHost is another host of the group, with an Envoy of the virtual node orders.
type secondHost struct {
	id, bind string
	cmd      *exec.Cmd
	output   bytes.Buffer // read it when ended is closed
	ended    chan struct{}
}

func startHost(t *testing.T, w *meshtest.World) *secondHost {
	t.Helper()
	loopback, err := dev.ReserveLoopback(2, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Addr: fmt.Sprintf("%s:%d", loopback.Addresses[1], meshtest.AppPort), Handler: meshtest.Echo("second"), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = app.ListenAndServe() }() // until Close
	known := agents(t, w)
	addresses, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &secondHost{bind: loopback.Addresses[0], ended: make(chan struct{})}
	config := fmt.Sprintf(`server: %s
data_dir: %s
socket_dir: %s
metrics: 127.0.0.1:0
envoy: %s
proxy_user: "%d"
proxies:
- {name: orders, mesh: test, virtual_node: orders, bind: %s, app: %s, egress_port: %d, concurrency: 1}
`, addresses.Agents, filepath.Join(w.Dir, "second-data"), filepath.Join(w.Dir, "second"), parts.Envoy(t), os.Getuid(), h.bind, loopback.Addresses[1], meshtest.EgressPort)
	path := filepath.Join(w.Dir, "second.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	h.cmd = exec.CommandContext(ctx, parts.Signet(t), "agent", "--config", path)
	h.cmd.Cancel = func() error { return h.cmd.Process.Signal(os.Interrupt) }
	h.cmd.WaitDelay = 20 * time.Second
	h.cmd.Env = append(os.Environ(), "SIGNET_TOKEN="+w.Token())
	h.cmd.Stdout, h.cmd.Stderr = &h.output, &h.output
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.cmd.Wait(); close(h.ended) }() // its exit code is looked at
	t.Cleanup(func() {
		stop()
		<-h.ended
		if err := errors.Join(app.Close(), loopback.Close()); err != nil {
			t.Error(err)
		}
	})
	eventually(t, 30*time.Second, "the second host joins", func() bool {
		for id := range agents(t, w) {
			if !known[id] {
				h.id = id
			}
		}
		return h.id != ""
	})
	return h
}

// agents that the server knows, by id.
func agents(t *testing.T, w *meshtest.World) map[string]bool {
	t.Helper()
	answer, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, a := range answer.GetAgents() {
		ids[a.GetId()] = true
	}
	return ids
}
