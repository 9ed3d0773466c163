package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// TestAProxyInAnotherNetworkNamespaceLetsOutWhomItsBindingSays: the agent sees no
// connection of the other namespace, and equal addresses in its own are not those.
func TestAProxyInAnotherNetworkNamespaceLetsOutWhomItsBindingSays(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	const app = "127.0.0.9"
	dir := t.TempDir()
	program := copyOf(t, parts.Envoy(t), filepath.Join(dir, "envoy"))
	page := func(agentDir string) []string {
		return ownBlocks(t, "/opt/web", dir, "/run/signet", agentDir, "unix:uid:1001", "unix:uid:0",
			"192.0.2.7", parts.AnotherHost, "127.0.0.1", app, "shop", "test")
	}
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"orders"}, Binds: map[string]string{"orders": parts.ThisHost},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("orders", ""), meshtest.ServiceOfNode("orders", "orders"), page("")[0]),
	})
	manifest, bootstrap := page(w.AgentDir())[0], page(w.AgentDir())[1]
	serveThere := func(address string) { // an application of root's, there
		var l net.Listener
		parts.FromAnotherHost(t, func() {
			var err error
			if l, err = net.Listen("tcp", address); err != nil {
				t.Error(err)
			}
		})
		server := &http.Server{Handler: meshtest.Echo("web"), ReadHeaderTimeout: 10 * time.Second}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
		t.Cleanup(func() { _ = server.Close(); <-done })
	}
	serveThere(app + ":8080")
	startThere(t, program, dir, bootstrap)

	// The same address here, with an owner who may not mean anything there.
	serveEcho(t, app+":8080")
	same, err := new(net.ListenConfig).Listen(t.Context(), "tcp", app+":15001")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = same.Close() })

	call := func() (status int, err error) {
		parts.FromAnotherHost(t, func() { status, err = rawCall(app+":15001", "/orders") })
		return status, err
	}
	eventually(t, 20*time.Second, "the proxy listens, and the connection is closed", func() bool {
		_, err := call()
		return err != nil && !errors.Is(err, syscall.ECONNREFUSED)
	})
	eventually(t, 5*time.Second, "the agent says why", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), "the proxy is in another network namespace than the agent")
	})
	if status, err := call(); err == nil {
		t.Errorf("without a word in its Binding: %d", status)
	}
	for _, p := range w.Proxies() {
		if p.GetName() != "orders" {
			t.Errorf("%s is registered, and nobody here sees who listens there", p.GetName())
		}
	}
	binding, _, _ := strings.Cut(manifest, "---")
	named := strings.Replace(binding, "selectors:", "applications: [namespace], selectors:", 1)
	if named == binding {
		t.Fatalf("no selectors in %s", binding)
	}
	w.Apply(named)
	eventually(t, 10*time.Second, "it calls out as its Binding says", func() bool {
		status, err := call()
		return err == nil && status == 200
	})
}

// TestThroughAnOpenWayOutAnotherHostCallsOnlyWhereAnyoneMay: who calls there is
// not to be seen from here, whatever user it is.
func TestThroughAnOpenWayOutAnotherHostCallsOnlyWhereAnyoneMay(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"web"}, Binds: map[string]string{"web": parts.ThisHost}, EgressOpen: map[string]string{"web": parts.ThisHost},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "web"), meshtest.ServiceOfNode("web", "web")),
	})
	w.AwaitRoute("web", webHost+"/")
	at := w.Nodes["web"].EgressAddress()
	here := func() bool { status, err := rawCallTo(at, webHost+"/"); return err == nil && status == 200 }
	there := func() (served bool) {
		parts.FromAnotherHost(t, func() { served = here() })
		return served
	}
	bind := func(applications string) {
		t.Helper()
		w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\n" +
			"spec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"], applications: [" + applications + "]}\n")
	}
	only := func(what string) {
		t.Helper()
		for range 20 {
			if there() {
				t.Errorf("%s: another host was served", what)
			}
		}
		if !here() {
			t.Errorf("%s: the application was not served", what)
		}
	}
	only("the owner of the listeners")
	eventually(t, 5*time.Second, "the agent says why", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), "reason=gone caller="+parts.AnotherHost)
	})
	bind(fmt.Sprintf("\"unix:uid:%d\"", nobody))
	eventually(t, 10*time.Second, "nobody is named", func() bool { return !here() })
	bind(fmt.Sprintf("\"unix:uid:%d\"", os.Getuid()))
	eventually(t, 10*time.Second, "the user is named", here)
	only("the user by name")
	bind("namespace")
	eventually(t, 10*time.Second, "the agent's own namespace is no unit", func() bool { return !here() })
	if there() {
		t.Error("another host was served as the agent's own namespace")
	}
	bind("anyone")
	eventually(t, 10*time.Second, "anyone is served", there)
}

// startThere starts an Envoy on the other host.
func startThere(t *testing.T, program, dir, bootstrap string) {
	t.Helper()
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "envoy.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	var started error
	parts.FromAnotherHost(t, func() { started = cmd.Start() }) // a child is where the thread is that made it
	if started != nil {
		t.Fatal(started)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // its log says why
		_ = log.Close()        // written by Envoy
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("its log:\n%s", said)
		}
	})
}
