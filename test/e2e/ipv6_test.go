package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Addresses of this host that the test gives it: the one from which its agent connects, and
// two that only a range lets it have.
const sixOwn, sixOther, sixThird = "fd00:20::1", "fd00:20::2", "fd00:20::3"

// TestAMeshOfIPv6 has no IPv4 address but of loopback: server and agent, listeners, registered
// endpoints, and one proxy whose application and way out are at ::1.
func TestAMeshOfIPv6(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	for _, a := range []string{sixOwn, sixOther, sixThird} {
		if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), "addr", "add", a+"/64", "dev", "wire", "nodad").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("[::1]:%d", meshtest.AppPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: meshtest.Echo("web"), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close(); <-done })
	w := meshtest.Start(t, meshtest.Options{
		Listen: "[" + sixOwn + "]:0", Nodes: []string{"front", "orders"}, Binds: map[string]string{"front": sixOwn, "orders": sixOther}, NoAgent: true,
		AgentExtra: "- {name: web, mesh: test, virtual_node: web, bind: \"" + sixThird + "\", app: \"::1\", egress: \"[::1]:15009\"}\n",
		Manifests: meshtest.Join(strings.Replace(meshtest.Mesh(), "spec: {", "spec: {meshServiceDiscovery: {ipPreference: IPv6_ONLY}, ", 1),
			meshtest.VirtualNode("front", "", "orders", "web"), meshtest.VirtualNode("orders", "", "web"), meshtest.VirtualNode("web", "", "orders"),
			meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("web", "web"),
			"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\nspec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"]}\n"),
	})
	w.StartAgent()
	eventually(t, 20*time.Second, "without a range the other addresses are not served", func() bool {
		s := w.ProxyStates()
		return s["orders"] == api.ProxyStatus_UNSERVED && s["web"] == api.ProxyStatus_UNSERVED && s["front"] == api.ProxyStatus_READY
	})
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {addresses: [\"fd00:20::/64\"]}\n")
	w.AwaitRoute("front", host+"/orders")
	w.AwaitRoute("front", webHost+"/")
	w.AwaitRoute("orders", webHost+"/")
	for from, to := range map[string]string{"front": webHost + "/", "orders": webHost + "/"} {
		if a := w.Get(from, to); a.Status != 200 || a.Seen.Service != "web" || a.Seen.Caller() != "spiffe://test.example/test/"+from {
			t.Errorf("%s to web: %d, called by %q: %s", from, a.Status, a.Seen.Caller(), a.Body)
		}
	}
	if status, err := rawCall("[::1]:15009", "/orders"); err != nil || status != 200 {
		t.Errorf("web calls orders by its way out at ::1: %d %v", status, err)
	}
	if out, code := w.CLI("check"); code != 0 && strings.Contains(out, "SIG008") {
		t.Errorf("check:\n%s", out)
	}
	if out, _ := w.CLI("proxies", "-o", "wide"); !strings.Contains(out, sixThird) {
		t.Errorf("proxies:\n%s", out)
	}
}
