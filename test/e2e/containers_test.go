package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Users in containers, and of the Envoys in a pod and in a task.
const containerUser, podEnvoy, taskEnvoy = 59021, 59022, 59023

// containedEnv is where the test binary listens when it is the application in a
// container, and after a space the way out that it asks for whoever calls /out. It may
// listen "nowhere".
const containedEnv = "SIGNET_TEST_CONTAINED"

// nobodysHost is known to no mesh: who is let out to ask for it is answered 404.
const nobodysHost = "http://unknown.internal/"

// contained is an application until it is told to end.
func contained(text string) int {
	at, out, _ := strings.Cut(text, " ")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	if at != "nowhere" {
		network, address := "tcp", at
		if path, ok := strings.CutPrefix(at, "unix:"); ok {
			network, address = "unix", path
		}
		syscall.Umask(0o007)
		l, err := net.Listen(network, address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		mux := http.NewServeMux()
		mux.Handle("/", meshtest.Echo("contained"))
		mux.HandleFunc("/out", func(w http.ResponseWriter, _ *http.Request) { // what it is answered itself
			status := 0
			conn, err := net.Dial("tcp", out) //nolint:gosec // as the test says
			if err == nil {
				status, err = rawCallOn(conn, nobodysHost)
				_ = conn.Close() // read to its end
			}
			_, _ = fmt.Fprint(w, status, err) // the caller went away
		})
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(l) }() // until the end
	}
	<-ended
	return 0
}

// contain starts an application in a container.
func contain(t *testing.T, p *parts.Podman, name string, uid int, at string, options []string, files ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.Start(name, uid, append([]string{"--env", containedEnv + "=" + at}, options...), append(files, self), self)
}

// outOf is one call out of a container, on a connection of its own, as a user there:
// who the application at the other end took it for.
func outOf(p *parts.Podman, container string, uid int, egress string) (caller string, err error) {
	to := []string{"http://" + egress + "/orders"}
	if strings.HasPrefix(egress, "/") {
		to = []string{"--unix-socket", egress, "http://on-a-socket/orders"}
	}
	out, err := p.Try(append([]string{"exec", "--user", fmt.Sprintf("%d:%d", uid, uid), container, "curl", "-sS", "-f", "-m", "5", "-H", "Host: orders.test.internal"}, to...)...)
	if err != nil {
		return "", err
	}
	var seen meshtest.Seen
	err = json.Unmarshal([]byte(out), &seen)
	return seen.Caller(), err
}

// How curl ends where nobody answers.
const (
	curlRefused = "exit status 7"  // nobody listens, or the socket may not be opened
	curlClosed  = "exit status 52" // by the proxy, unread
	curlReset   = "exit status 56"
)

// TestContainersCallOutAsTheNetworkThatTheyAreInLetsThem runs what docs/AGENT.md says of
// containers with a real runtime: who may speak, and who is refused.
func TestContainersCallOutAsTheNetworkThatTheyAreInLetsThem(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	p := parts.Containers(t)
	nodes := []string{"shared", "bridged", "open", "pod", "task"}
	ports := map[string]string{"shared": "8080", "bridged": "8080", "open": "8085", "pod": "8080", "task": "8080"}
	manifests := meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders"))
	for _, n := range nodes {
		manifests = meshtest.Join(manifests, strings.Replace(meshtest.VirtualNode(n, "", "orders"), "port: 8080", "port: "+ports[n], 1))
	}
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"orders"}, Binds: map[string]string{"orders": parts.ThisHost}, NoAgent: true,
		ProxyUser: strconv.Itoa(proxyUser), Manifests: manifests,
	})
	c := &inContainers{t, w, p, w.PlaceEnvoy()}
	for _, n := range nodes[:3] {
		c.bind(n, `"signet:proxy:`+n+`"`, "")
	}
	const (
		sharedOut, openOut = "127.0.0.31:15001", "10.88.0.1:15001"
		openApp            = "10.88.0.30"
	)
	app, out := w.SocketFolders("bridged", meshtest.OnSockets{User: containerUser, WayOut: true})
	sockets := []string{filepath.Dir(strings.TrimPrefix(app, "unix:")), filepath.Dir(out)}
	// The bridge is there with the first container on it.
	contain(t, p, "bridged", containerUser, strings.Replace(app, "{port}", "8080", 1), nil, sockets...)
	contain(t, p, "neighbour", containerUser, "nowhere", nil)
	contain(t, p, "open", containerUser, openApp+":8085", []string{"--ip", openApp})
	contain(t, p, "shared", containerUser, "127.0.0.32:8080", []string{"--network", "host"})
	w.ExtendAgent(fmt.Sprintf(`- {name: shared, mesh: test, virtual_node: shared, bind: 127.0.0.31, app: 127.0.0.32, egress: "%s", concurrency: 1}
- {name: bridged, mesh: test, virtual_node: bridged, bind: 127.0.0.33, app: "%s", egress: "unix:%s", concurrency: 1}
- {name: open, mesh: test, virtual_node: open, bind: "::1", app: %s, egress: "%s", egress_open: true, concurrency: 1}
`, sharedOut, app, out, openApp, openOut))
	w.StartAgent()
	w.AwaitProxies()

	t.Run("the host's network", func(t *testing.T) {
		c := c.of(t)
		c.served("shared", containerUser, sharedOut, "shared")
		c.refused("another user of the container", "shared", otherUser, sharedOut, curlClosed)
		c.refusedHere("the same user of the host", containerUser, sharedOut)
		c.refusedHere("root of the host", 0, sharedOut)
		c.said("a process of user 59021 outside of /libpod_parent/libpod-")
		contain(t, p, "second", containerUser, "nowhere", []string{"--network", "host"})
		c.refused("the same user in another container", "second", containerUser, sharedOut, curlClosed)
		c.refused("a container on the bridge", "neighbour", containerUser, sharedOut, curlRefused)
		p.Do("rm", "--force", "--time", "0", "shared")
		c.refused("another container, while the application is down", "second", containerUser, sharedOut, curlClosed)
		contain(t, p, "shared", containerUser, "127.0.0.32:8080", []string{"--network", "host"})
		c.served("shared", containerUser, sharedOut, "shared")
	})
	t.Run("an address that the rules of the bridge rewrite", func(t *testing.T) {
		c := c.of(t)
		c.bind("shared", `"signet:proxy:shared"`, fmt.Sprintf(`"unix:uid:%d"`, containerUser))
		eventually(t, 10*time.Second, "the user is named", func() bool {
			status, err := callAs(t, containerUser, sharedOut, "/orders")
			return err == nil && status == http.StatusOK
		})
		// Both have one port; what leaves the bridge's network gets the host's address.
		dial := func(uid int, from string) net.Conn {
			t.Helper()
			var conn net.Conn
			parts.AsUser(t, uid, func() {
				var err error
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 40123)), Timeout: 5 * time.Second}
				if conn, err = d.Dial("tcp", sharedOut); err != nil {
					t.Error(err)
				}
			})
			if conn == nil {
				t.FailNow()
			}
			t.Cleanup(func() { _ = conn.Close() }) // answered, or closed by the proxy
			return conn
		}
		stranger := dial(otherUser, "10.88.0.1")
		dial(containerUser, parts.ThisHost)
		if status, err := rawCallOn(stranger, host+"/orders"); err == nil {
			t.Errorf("another user was taken for the application, and answered %d", status)
		}
	})
	t.Run("a bridge, by sockets", func(t *testing.T) {
		c := c.of(t)
		c.served("bridged", containerUser, out, "bridged")
		c.refused("another user of the container", "bridged", otherUser, out, curlRefused)
		c.refused("a container that was not given the socket", "neighbour", containerUser, out, curlRefused)
		c.refusedHere("another user of the host", otherUser, out)
		a, err := rawCallTo("127.0.0.33:8080", "http://127.0.0.33:8080/")
		if err != nil || a != 200 {
			t.Errorf("a call to the application in the container: %d, %v", a, err)
		}
	})
	t.Run("a bridge, by an open way out", func(t *testing.T) {
		c := c.of(t)
		c.refused("who listens there cannot be seen", "open", containerUser, openOut, curlClosed)
		if gone := c.refusals("gone"); gone == 0 {
			t.Error("it was not refused as one who is not seen")
		}
		// Whoever listens at every address of the host does not listen at the container's.
		var l net.Listener
		parts.AsUser(t, otherUser, func() {
			var err error
			if l, err = net.Listen("tcp4", "0.0.0.0:8085"); err != nil { //nolint:gosec // on this host of the test's own
				t.Error(err)
			}
		})
		if l == nil {
			return
		}
		defer func() { _ = l.Close() }()                                                                                 // nobody came
		for end := time.Now().Add(1300 * time.Millisecond); time.Now().Before(end); time.Sleep(200 * time.Millisecond) { // who listens is looked up once a second
			c.refusedHere("a user of the host who listens on the application's port", otherUser, openOut)
		}
		eventually(t, 10*time.Second, "signet check says why", func() bool {
			said, _ := c.w.CLI("check")
			return strings.Contains(said, openApp+" is no address of this network namespace")
		})
		c.bind("open", `"signet:proxy:open"`, fmt.Sprintf(`"unix:uid:%d"`, containerUser))
		eventually(t, 10*time.Second, "the user is named", func() bool {
			status, err := callAs(t, containerUser, openOut, "/orders")
			return err == nil && status == 200
		})
		c.refused("a user by name, who is not seen", "open", containerUser, openOut, curlClosed)
		c.bind("open", `"signet:proxy:open"`, "anyone")
		c.served("open", containerUser, openOut, "open")
		c.served("neighbour", otherUser, openOut, "open")
	})
	t.Run("a pod and a task, with equal addresses", func(t *testing.T) { c.of(t).shareTheirs() })
}

// inContainers are questions of one test.
type inContainers struct {
	t     *testing.T
	w     *meshtest.World
	p     *parts.Podman
	envoy string // the program
}

func (c *inContainers) of(t *testing.T) *inContainers { return &inContainers{t, c.w, c.p, c.envoy} }

func (c *inContainers) bind(node, selectors, applications string) {
	c.t.Helper()
	c.w.Apply(fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s-proxy}\nspec: {group: hosts, mesh: test, virtualNode: %[1]s, selectors: [%s], applications: [%s]}\n",
		node, selectors, applications))
}

// served waits until a container calls out as a node.
func (c *inContainers) served(container string, uid int, egress, node string) {
	c.t.Helper()
	var caller string
	var err error
	want := "spiffe://test.example/test/" + node
	for end := time.Now().Add(15 * time.Second); caller != want; time.Sleep(100 * time.Millisecond) {
		if caller, err = outOf(c.p, container, uid, egress); time.Now().After(end) {
			c.t.Fatalf("%s, user %d, at %s: %q, %v, want %s", container, uid, egress, caller, err, want)
		}
	}
}

// refused expects that nobody answers, in one of these ways.
func (c *inContainers) refused(what, container string, uid int, egress, how string) {
	c.t.Helper()
	caller, err := outOf(c.p, container, uid, egress)
	if err == nil {
		c.t.Errorf("%s: was served as %s", what, caller)
	} else if !strings.Contains(err.Error(), how) && (how != curlClosed || !strings.Contains(err.Error(), curlReset)) {
		c.t.Errorf("%s: %v, want %s", what, err, how)
	}
}

// refusedHere is refused for a user of the host, outside of every container.
func (c *inContainers) refusedHere(what string, uid int, egress string) {
	c.t.Helper()
	if status, err := callAs(c.t, uid, egress, "/orders"); err == nil {
		c.t.Errorf("%s: was answered %d", what, status)
	}
}

// refusals are how many connections the agent refused for a reason.
func (c *inContainers) refusals(reason string) float64 {
	c.t.Helper()
	return metrics(c.t, c.w, c.w.AgentDir())[fmt.Sprintf("signet_agent_wayout_connections_total{result=%q}", reason)]
}

func (c *inContainers) said(words string) {
	c.t.Helper()
	eventually(c.t, 5*time.Second, "the agent says "+words, func() bool { return strings.Contains(c.w.Agent.Tail(1<<20), words) })
}

// shareTheirs has an Envoy and an application share the network of a pod, and of another
// container, as those of an ECS task do that of its first one (awsvpc).
func (c *inContainers) shareTheirs() {
	t, p := c.t, c.p
	p.Do("pod", "create", "--name", "pod", "--infra-image", parts.BareImage, "--infra-command", "sleep infinity", "--share-parent=false", "--volume", "/usr:/usr:ro")
	contain(t, p, "task", containerUser, "nowhere", nil)
	const app, out = "127.0.0.1:8080", "127.0.0.1:15001"
	for name, uid := range map[string]int{"pod": podEnvoy, "task": taskEnvoy} {
		network := []string{"--pod", name}
		if name == "task" {
			network = []string{"--network", "container:task"}
		}
		contain(t, p, name+"-app", containerUser, app, network)
		c.envoyIn(name, uid, network)
	}
	bind := func(applications string) {
		t.Helper()
		c.bind("pod", fmt.Sprintf(`"unix:path:%s", "unix:uid:%d"`, c.envoy, podEnvoy), applications)
		c.bind("task", fmt.Sprintf(`"unix:uid:%d"`, taskEnvoy), applications)
	}
	bind("")
	for _, name := range []string{"pod", "task"} {
		eventually(t, 20*time.Second, "the Envoy of the "+name+" closes the connection", func() bool {
			_, err := outOf(p, name+"-app", containerUser, out)
			return err != nil && (strings.Contains(err.Error(), curlClosed) || strings.Contains(err.Error(), curlReset))
		})
	}
	if c.refusals("namespace") == 0 {
		t.Error("they were not refused for their namespace")
	}
	bind(fmt.Sprintf(`"unix:uid:%d"`, containerUser))
	time.Sleep(500 * time.Millisecond) // it is known to the agent
	c.refused("a user by name", "pod-app", containerUser, out, curlClosed)
	bind("namespace")
	for _, name := range []string{"pod", "task"} {
		c.served(name+"-app", containerUser, out, name)
		c.served(name+"-app", otherUser, out, name) // all that is in it
	}
	c.refused("another container on the bridge", "neighbour", containerUser, p.Do("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "task")+":15001", curlRefused)
	c.refused("the same address elsewhere", "neighbour", containerUser, out, curlRefused)
	if _, err := callAs(t, containerUser, out, "/orders"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the same address of the host: %v", err)
	}
}

// envoyIn starts an Envoy with the bootstrap of docs/ENVOY.md in a container.
func (c *inContainers) envoyIn(node string, uid int, network []string) {
	c.t.Helper()
	dir := filepath.Join(c.w.Dir, node+"-envoy")
	file := filepath.Join(dir, "bootstrap.yaml")
	bootstrap := ownBlocks(c.t, "/opt/web", dir, "/run/signet", c.w.AgentDir(), "192.0.2.7", "127.0.0.3", "mesh/shop/virtualNode/web", "mesh/test/virtualNode/"+node)[1]
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(file, []byte(bootstrap), 0o600), os.Chown(dir, uid, uid), os.Chown(file, uid, uid)); err != nil {
		c.t.Fatal(err)
	}
	c.p.Start(node+"-envoy", uid, network, []string{dir, c.w.AgentDir(), c.envoy},
		c.envoy, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
}
