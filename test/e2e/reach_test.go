package e2e

import (
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// nameServer is where the agent is one.
const nameServer = "127.0.0.1:5353"

// nobody is a user who owns nothing here.
const nobody = 65534

// TestWhoReachesWhatIsTheTableInSecurity tries every port and socket that anything
// of ours listens on, from another host and as another user of this one.
func TestWhoReachesWhatIsTheTableInSecurity(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), "addr", "add", second+"/24", "dev", "wire").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	services := addressRange(t)
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"web", "led"}, Readable: []string{"web"}, Binds: map[string]string{"web": parts.ThisHost, "led": second}, Ranges: `"10.231.0.0/24"`,
		ServiceAddresses: []string{"web"}, Capture: map[string]string{"led": "{egress: 15001, ingress: 15000}"}, AgentExtra: "dns: {listen: " + nameServer + ", upstreams: [\"127.0.0.1:9\"]}\n",
		Manifests: meshtest.Join(meshtest.Mesh(), "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: test}\nspec: {serviceAddresses: {range: "+services+"}}\n",
			meshtest.VirtualNode("web", "", "web"), meshtest.VirtualNode("led", ""), meshtest.ServiceOfNode("web", "web")),
	})
	w.AwaitRoute("web", webHost+"/")
	if a := w.Get("web", webHost+"/"); a.Seen.Caller() != ownID {
		t.Errorf("web's application calls as %q, %d %s", a.Seen.Caller(), a.Status, a.Body)
	}
	names, want, got := reachNames(t, w, services), reachTable(t), map[string]reach{}
	for _, at := range append(tcpListeners(t), unixListeners(t)...) {
		name := ""
		for pattern, n := range names {
			if ok, _ := filepath.Match(pattern, at); ok {
				name = n
			}
		}
		switch name {
		case "application": // the test's own
		case "":
			t.Errorf("%s is listened on, and not in the table", at)
		default:
			got[name] = tryAll(t, at)
		}
	}
	for name := range maps.Keys(want) {
		if seen, ok := got[name]; !ok {
			t.Logf("%q is not here", name)
		} else if seen != want[name] {
			t.Errorf("%s: seen %+v, and the table says %+v", name, seen, want[name])
		}
	}
	for _, name := range []string{"server, agents' port", "agent, name server", "proxy, inbound", "proxy, redirected inbound", "proxy, outbound", "proxy, addresses of services", "proxy, read only"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%q was not tried", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is not in the table: %+v", name, got[name])
		}
	}
}

// reach is who can connect.
type reach struct{ anotherHost, anotherUser string }

func reachNames(t *testing.T, w *meshtest.World, services string) map[string]string {
	t.Helper()
	server, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	agent, err := w.Addresses(w.AgentDir())
	if err != nil {
		t.Fatal(err)
	}
	n := w.Nodes["web"]
	sock := func(name string) string { return filepath.Join(w.AgentDir(), name) }
	return map[string]string{
		server.Agents: "server, agents' port", server.Metrics: "server, metrics", agent.Metrics: "agent, metrics",

		w.Socket():        "server, admin.sock",
		n.Bind + ":8080":  "proxy, inbound",
		n.EgressAddress(): "proxy, outbound",
		"*:15000":         "proxy, redirected inbound",
		"*1*:15001":       "proxy, outbound", // of what is redirected, at ::1 too
		nameServer:        "agent, name server",

		strings.Replace(services, "0/24", "*:8080", 1): "proxy, addresses of services",

		n.ReadOnly():    "proxy, read only",
		n.App + ":8080": "application",

		w.Nodes["led"].App + ":8080": "application",

		"127.*:15999": "application", // that the addresses are taken

		sock("xds.sock"):             "agent, xds.sock",
		sock("*load.sock"):           "agent, workload.sock",
		sock("authz.sock"):           "agent, authz.sock",
		sock("wayout.sock"):          "agent, wayout.sock",
		sock("local.sock"):           "agent, local.sock",
		sock("proxies/*/admin.sock"): "proxy, admin.sock",
	}
}

// reachTable is the one of SECURITY.md.
func reachTable(t *testing.T) map[string]reach {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(parts.Root(), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Who can reach what")
	section, _, _ = strings.Cut(section, "\n## ")
	out := map[string]reach{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \| [^|]+ \| (connects|cannot|-) \| (connects|cannot) \| [^|]+ \|$`).FindAllStringSubmatch(section, -1) {
		out[m[1]] = reach{m[2], m[3]}
	}
	if len(out) < 10 {
		t.Fatalf("SECURITY.md has %d rows of who can reach what", len(out))
	}
	return out
}

// tryAll connects from everywhere. A Unix socket is reached through the file
// system alone, which the other host of this test shares and a real one does not.
func tryAll(t *testing.T, at string) reach {
	t.Helper()
	network, seen := "tcp", reach{}
	if strings.HasPrefix(at, "/") {
		network, seen.anotherHost = "unix", "-"
	} else {
		at = strings.NewReplacer("0.0.0.0:", parts.ThisHost+":", "[::]:", parts.ThisHost+":").Replace(at)
		parts.FromAnotherHost(t, func() { seen.anotherHost = tryConnect(network, at) })
	}
	parts.AsUser(t, nobody, func() { seen.anotherUser = tryConnect(network, at) })
	return seen
}

func tryConnect(network, at string) string {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, at)
	if err != nil {
		return "cannot"
	}
	_ = conn.Close() // nothing was said
	return "connects"
}

// tcpListeners of this host: it has no others than this test's.
func tcpListeners(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for _, line := range procLines(t, file) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" {
				out = append(out, procAddress(t, f[1]))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out) // a listener of several workers
}

// procAddress reads 0100007F:1F90, an address in words as the processor has them.
func procAddress(t *testing.T, s string) string {
	t.Helper()
	words, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err, err2); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(p)).String()
}

func unixListeners(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, line := range procLines(t, "/proc/net/unix") {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		if flags, err := strconv.ParseUint(f[3], 16, 32); err == nil && flags&0x10000 != 0 { // __SO_ACCEPTCON
			out = append(out, f[len(f)-1])
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

func procLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(b), "\n")
}
