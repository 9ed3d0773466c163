package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3" // of the bootstrap, as the next is
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/test/corpus"
	"signet.example/test/invariants"
	"signet.example/test/meshtest"
)

// frontOnly is a policy by which a health check would be denied if it were not exempt.
const frontOnly = `package signet.authz

allow contains "front reads orders" if {
	input.source.spiffe_id == "spiffe://test.example/test/front"
	input.request.segments[0] == "orders"
}

allow contains "front talks" if {
	input.source.spiffe_id == "spiffe://test.example/test/front"
	input.request.segments[0] == "talk"
}
`

func probed(path string) string {
	return fmt.Sprintf("      healthCheck: {protocol: http, path: %s, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}\n", path)
}

// memberOf is an Entry by which the test's own process gets a node's identity.
func memberOf(node string) string {
	return fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: test-as-%s}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/%s\", selectors: [\"unix:uid:%d\"]}\n", node, node, uid())
}

// adminGet asks a supervised Envoy's admin interface.
func adminGet(t *testing.T, w *meshtest.World, proxy, path string) []byte {
	t.Helper()
	return adminAt(t, filepath.Join(w.AgentDir(), "proxies", proxy, "admin.sock"), path)
}

// adminAt asks the admin interface at a Unix socket.
func adminAt(t *testing.T, socket, path string) []byte {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("envoy %s %s: %s %v", socket, path, resp.Status, err)
	}
	return body
}

// configDump is all that an Envoy runs, static and dynamic.
func configDump(t *testing.T, w *meshtest.World, proxy string) *adminv3.ConfigDump {
	t.Helper()
	var dump adminv3.ConfigDump
	if err := protojson.Unmarshal(adminGet(t, w, proxy, "/config_dump?include_eds"), &dump); err != nil {
		t.Fatalf("config dump of %s: %v", proxy, err)
	}
	return &dump
}

// upstreamConnections that an Envoy has opened, but to its agent.
func upstreamConnections(t *testing.T, w *meshtest.World, proxy string) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(string(adminGet(t, w, proxy, "/stats?filter=upstream_cx_total"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if !strings.HasPrefix(name, "cluster.cds_") {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("stat %q", line)
		}
		total += n
	}
	return total
}

func invariantsMesh(t *testing.T) (*meshtest.World, *recorder) {
	t.Helper()
	app := &recorder{}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "batch", "orders", "stock"}, Apps: map[string]meshtest.App{"orders": app},
		Manifests: meshtest.Join(meshtest.Mesh(),
			meshtest.VirtualNode("front", meshtest.Strict("test.example", "front"), "orders"),
			meshtest.VirtualNode("batch", "", "stock"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")+probed("/healthz"), "stock"),
			meshtest.VirtualNode("stock", probed("/ping/stock")),
			meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("stock", "stock"),
			fmt.Sprintf(tester, uid()), memberOf("front"), memberOf("batch")),
		Policy: map[string]string{"front.rego": frontOnly},
	})
	w.AwaitRoute("front", host+"/orders")
	return w, app
}

func TestEveryRunningEnvoyKeepsTheInvariants(t *testing.T) {
	w, app := invariantsMesh(t)
	for _, node := range []string{"front", "batch", "orders", "stock"} {
		t.Run("config of "+node, func(t *testing.T) { dumpedConfig(t, w, node) })
	}
	t.Run("key exchanges", func(t *testing.T) { keyExchanges(t, w) })
	t.Run("what an Envoy is started with", func(t *testing.T) { startedWith(t, w) })
	t.Run("exemptions, one by one", func(t *testing.T) { listedExemptions(t, w) })
	d := &door{t: t, w: w, address: net.JoinHostPort(w.Nodes["orders"].Bind, strconv.Itoa(meshtest.AppPort)), app: app}
	t.Run("exemptions, by call", func(t *testing.T) { calledExemptions(t, w, d) })
	t.Run("no other way in", func(t *testing.T) { otherWays(t, w, d) })
	t.Run("unknown hosts", func(t *testing.T) { unknownHosts(t, w) })
}

// startedWith checks that nothing of the agent's environment, which may have held
// its token, is handed on, and that nobody else reads the proxies' files.
func startedWith(t *testing.T, w *meshtest.World) {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", childPID(t, w.Agent.PID(), "mesh/test/virtualNode/orders")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(environ), "PATH="+os.Getenv("PATH")+"\x00"; got != want {
		t.Errorf("an Envoy was started with %q", got)
	}
	// Folders of proxies of other users lie beside it.
	info, err := os.Stat(filepath.Join(w.AgentDir(), "proxies", "orders"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of a proxy: %v, %v", info, err)
	}
}

// dumpedConfig checks what an Envoy says that it runs, and counts what it was
// that was checked: nothing is easier than to find no fault in nothing.
func dumpedConfig(t *testing.T, w *meshtest.World, node string) {
	dump := configDump(t, w, node)
	for _, v := range invariants.Check([]proto.Message{dump}) {
		t.Error(v)
	}
	counts := map[string]int{}
	for _, part := range dump.GetConfigs() {
		m, err := part.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *adminv3.BootstrapConfigDump:
			counts["bootstrap"]++
			if n := len(m.GetBootstrap().GetStaticResources().GetListeners()); n > 0 {
				t.Errorf("%d static listeners", n)
			}
		case *adminv3.ListenersConfigDump:
			for _, l := range m.GetDynamicListeners() {
				var listener listenerv3.Listener
				if err := l.GetActiveState().GetListener().UnmarshalTo(&listener); err != nil {
					t.Fatal(err)
				}
				counts[strings.ToLower(corev3.TrafficDirection_name[int32(listener.GetTrafficDirection())])]++
				if l.GetErrorState() != nil {
					t.Errorf("listener %s: %s", l.GetName(), l.GetErrorState().GetDetails())
				}
			}
			counts["static listeners"] += len(m.GetStaticListeners())
		case *adminv3.RoutesConfigDump:
			for _, r := range m.GetDynamicRouteConfigs() {
				var routes routev3.RouteConfiguration
				if err := r.GetRouteConfig().UnmarshalTo(&routes); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(routes.GetName(), "rds_ingress_") {
					counts["inbound routes"]++
				}
			}
			counts["static routes"] += len(m.GetStaticRouteConfigs())
		case *adminv3.SecretsConfigDump:
			counts["secrets"] += len(m.GetDynamicActiveSecrets())
			if len(m.GetStaticSecrets()) > 0 {
				t.Error("static secrets")
			}
		}
	}
	if d := cmp.Diff(map[string]int{"bootstrap": 1, "inbound": 1, "outbound": 1, "inbound routes": 1, "secrets": 2, "static listeners": 0, "static routes": 0}, counts); d != "" {
		t.Errorf("not the parts that were expected (-want +got):\n%s", d)
	}
	raw := string(adminGet(t, w, node, "/config_dump?include_eds"))
	if strings.Contains(raw, "PRIVATE KEY") {
		t.Error("the dump has a private key")
	}
	// The same dump with one word more is a violation: the checker does read it.
	const place = `"status_on_error"`
	var worse adminv3.ConfigDump
	if err := protojson.Unmarshal([]byte(strings.ReplaceAll(raw, place, `"failure_mode_allow": true, `+place)), &worse); err != nil {
		t.Fatal(err)
	}
	if v := invariants.Check([]proto.Message{&worse}); !strings.Contains(strings.Join(v, " "), "failure_mode_allow") {
		t.Errorf("with failure_mode_allow: %q", v)
	}
}

// listedExemptions reads what the server sends agents beside the policy, as an
// agent of the same group.
func listedExemptions(t *testing.T, w *meshtest.World) {
	got := map[string][]string{}
	for _, r := range w.JoinHost().Resources(ads.PolicyType) {
		var revision api.PolicyRevision
		if err := proto.Unmarshal(r.Body, &revision); err != nil {
			t.Fatal(err)
		}
		if len(revision.GetModules()) == 0 {
			continue // the revision of before there was a policy
		}
		for _, e := range revision.GetExemptions() {
			name := strings.TrimSuffix(e.GetName(), fmt.Sprintf(" at port %d", e.GetPort())) // which is another one each time
			got[name+": "+e.GetMethod()+" "+e.GetPath()+" at "+e.GetDestination()] = slices.Sorted(slices.Values(e.GetSources()))
		}
	}
	want := map[string][]string{
		"generated: health check /healthz of test/orders: GET /healthz at spiffe://test.example/test/orders":     {"spiffe://test.example/test/front"},
		"generated: health check /ping/stock of test/stock: GET /ping/stock at spiffe://test.example/test/stock": {"spiffe://test.example/test/batch", "spiffe://test.example/test/orders"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("exemptions (-want +got):\n%s", d)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Logf("%s, for %v", name, got[name])
	}
}

func calledExemptions(t *testing.T, w *meshtest.World, d *door) {
	as := members(t, w)
	for _, c := range []struct {
		from, method, target string
		status               int
	}{
		{"front", "GET", "/orders", 200}, // the control: a rule
		{"front", "GET", "/healthz", 200},
		{"front", "GET", "/healthz?x=1", 403},
		{"front", "GET", "/healthz/", 403},
		{"front", "GET", "/healthz/x", 403},
		{"front", "GET", "/health%7A", 200}, // the same path to whoever reads it: normalised before
		{"front", "GET", "/HEALTHZ", 403},
		{"front", "GET", "/healthz;x", 400},
		{"front", "GET", "/ping/stock", 403}, // another's
		{"front", "GET", "/", 403},
		{"front", "HEAD", "/healthz", 403},
		{"front", "POST", "/healthz", 403},
		{"front", "OPTIONS", "/healthz", 403},
		{"front", "get", "/healthz", 0}, // refused by any status; Envoy's parser knows no such method
		{"batch", "GET", "/healthz", 403},
		{"batch", "GET", "/orders", 403},
		{"tester", "GET", "/healthz", 403},
	} {
		d.cert = as[c.from]
		d.app.take() // real probes
		status, arrived := d.send(c.method + " " + c.target + " HTTP/1.1\r\nHost: back\r\nUser-Agent: by-hand\r\nConnection: close\r\n\r\n")
		arrived = slices.DeleteFunc(arrived, func(a arrival) bool { return a.headers.Get("User-Agent") != "by-hand" })
		if c.status != 0 && status != c.status || c.status != 200 && status == 200 {
			t.Errorf("%s %s as %s: %d, want %d", c.method, c.target, c.from, status, c.status)
		}
		if (status == 200) != (len(arrived) == 1) {
			t.Errorf("%s %s as %s: %d, arrived %v", c.method, c.target, c.from, status, arrived)
		}
	}
	// The probes themselves come through: front's Envoy finds orders healthy.
	if clusters := string(adminGet(t, w, "front", "/clusters")); !strings.Contains(clusters, "health_flags::healthy") || strings.Contains(clusters, "failed_active_hc") {
		t.Errorf("orders is not healthy for front:\n%s", clusters)
	}
}

const upgrade = "GET %s HTTP/1.1\r\nHost: back\r\nUpgrade: %s\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// otherWays are requests that a proxy may treat as no ordinary ones (A07).
func otherWays(t *testing.T, w *meshtest.World, d *door) {
	d.cert = members(t, w)["front"]
	before := d.app.conns.Load()
	if status, _ := d.send(fmt.Sprintf(upgrade, "/talk", "websocket")); status != http.StatusSwitchingProtocols {
		t.Errorf("a websocket that the policy allows: %d", status)
	}
	if d.app.conns.Load() == before {
		t.Error("the control opened no connection to the application")
	}
	d.app.take()
	for name, request := range map[string]string{
		"a websocket that the policy denies":  fmt.Sprintf(upgrade, "/elsewhere", "websocket"),
		"a websocket on the exempted path":    fmt.Sprintf(upgrade, "/healthz", "websocket"),
		"an upgrade that is none of ours":     fmt.Sprintf(upgrade, "/talk", "tunnel"),
		"two upgrades":                        fmt.Sprintf(upgrade, "/talk", "tunnel, websocket"),
		"CONNECT":                             "CONNECT back:443 HTTP/1.1\r\nHost: back:443\r\n\r\n",
		"CONNECT in absolute form":            "CONNECT http://back/orders HTTP/1.1\r\nHost: back\r\n\r\n",
		"CONNECT of a path":                   "CONNECT /orders HTTP/1.1\r\nHost: back\r\n\r\n",
		"CONNECT to the application, by port": "CONNECT " + d.w.Nodes["orders"].App + ":8080 HTTP/1.1\r\nHost: " + d.w.Nodes["orders"].App + ":8080\r\n\r\n",
	} {
		status, arrived := d.send(request)
		if status > 0 && status < 400 {
			t.Errorf("%s: %d", name, status)
		}
		if arrived = withoutProbes(arrived); len(arrived) > 0 {
			t.Errorf("%s: %d, arrived %v", name, status, arrived)
		}
	}
	for name, fields := range map[string][][2]string{
		"CONNECT":                      {{":method", "CONNECT"}, {":authority", "back:443"}},
		"extended CONNECT":             {{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":authority", "back"}, {":path", "/talk"}},
		"extended CONNECT, not talked": {{":method", "CONNECT"}, {":protocol", "connect-udp"}, {":scheme", "https"}, {":authority", "back"}, {":path", "/talk"}},
	} {
		status, arrived := d.send2(fields...)
		if arrived = withoutProbes(arrived); status > 0 && status < 400 || len(arrived) > 0 {
			t.Errorf("%s by HTTP/2: %d, arrived %v", name, status, arrived)
		}
	}
}

func withoutProbes(arrived []arrival) []arrival {
	return slices.DeleteFunc(arrived, func(a arrival) bool { return strings.HasPrefix(a.headers.Get("User-Agent"), "Envoy/HC") })
}

// unknownHosts are what a node did not declare as a backend: 404, and nothing
// is opened to anybody.
func unknownHosts(t *testing.T, w *meshtest.World) {
	// The probes' own connection is there before anything is counted.
	if a := w.Get("front", "http://"+meshtest.HostOf("orders")+"/orders"); a.Status != 200 {
		t.Fatalf("the control: %d %s", a.Status, a.Body)
	}
	orders := w.Nodes["orders"]
	ask := func() int {
		before := upstreamConnections(t, w, "front")
		if before == 0 {
			t.Fatal("no upstream connection is counted")
		}
		for _, host := range []string{
			meshtest.HostOf("stock"), // exists, and front did not declare it
			meshtest.HostOf("nothing"), "localhost", "example.org", orders.Bind + ":8080", orders.App + ":8080", "[::1]", "169.254.169.254",
			meshtest.HostOf("orders") + ":9999", "x." + meshtest.HostOf("orders"),
		} {
			conn, err := net.Dial("tcp", w.Nodes["front"].EgressAddress())
			if err != nil {
				t.Fatal(err)
			}
			if status := corpus.Status(corpus.HTTP1(t, conn, "GET http://"+host+"/orders HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")); status != http.StatusNotFound {
				t.Errorf("%s: %d, want 404", host, status)
			}
			_ = conn.Close() // one request
		}
		return upstreamConnections(t, w, "front") - before
	}
	// A probe in between, each 5 s, is counted too: not in three rounds of a moment each.
	if opened := min(ask(), ask(), ask()); opened > 0 {
		t.Errorf("%d upstream connections were opened", opened)
	}
}

// members are the certificates of all identities that the test's process has, by
// the last part of the name.
func members(t *testing.T, w *meshtest.World) map[string]*tls.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	svids, err := workloadapi.FetchX509SVIDs(ctx, workloadapi.WithAddr("unix://"+filepath.Join(w.AgentDir(), "workload.sock")))
	if err != nil {
		t.Fatalf("Workload API: %v", err)
	}
	out := map[string]*tls.Certificate{}
	for _, s := range svids {
		cert := &tls.Certificate{PrivateKey: s.PrivateKey, Leaf: s.Certificates[0]}
		for _, c := range s.Certificates {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		out[path.Base(s.ID.Path())] = cert
	}
	return out
}
