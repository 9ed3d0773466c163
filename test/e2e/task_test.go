package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

const (
	// taskUser runs the pair in a task, as an image would.
	taskUser = 1337
	// ordersHost and frontHost are further addresses of this host.
	ordersHost, frontHost = "10.231.0.3", "10.231.0.4"
)

// image has the programs of a task.
type image struct{ signet, envoy string }

// task is a container of a task on a host of its own, which is its network namespace: agent and
// Envoy below the first process of a PID namespace, and an application beside them.
type task struct {
	t     *testing.T
	host  int // the n-th, of which the first is this one
	image image
	// platform is what is redirected to the pair. Without it the application listens on
	// 127.0.0.1 and calls by http_proxy, with it as if there were no proxy.
	platform parts.ProxyConfiguration
	dir      string
	cmd      *exec.Cmd
	out      string // file of its standard output and error
	app      *http.Server
	caller   *http.Client
	ended    chan struct{}
	err      error // set before ended is closed
}

// startTask starts one, and its application, and waits until it is healthy.
func startTask(t *testing.T, w *meshtest.World, with image, name string, env ...string) *task {
	t.Helper()
	k := &task{t: t, host: 2, image: with, dir: filepath.Join(w.Dir, name), ended: make(chan struct{})}
	k.serve(meshtest.Echo(name))
	k.begin(w, append([]string{"SIGNET_PROXY_VIRTUAL_NODE=web"}, env...)...)
	return k
}

// begin starts the pair with a token, and waits until it is healthy.
func (k *task) begin(w *meshtest.World, env ...string) {
	k.t.Helper()
	server, err := w.Addresses(w.ServerDir())
	if err != nil {
		k.t.Fatal(err)
	}
	begun := time.Now()
	k.start([]string{"task"}, append([]string{
		"PATH=" + os.Getenv("PATH"), "SIGNET_SERVER=" + server.Agents, "SIGNET_TOKEN=" + w.Token(), "SIGNET_SOCKET_DIR=" + k.path("run"), "SIGNET_DATA_DIR=" + k.path("data"),
		"SIGNET_ENVOY=" + k.image.envoy, "SIGNET_DRAIN_TIME=1s", "SIGNET_PROXY_MESH=test", "SIGNET_PROXY_CONCURRENCY=1",
	}, env...))
	if said, err := k.signet("agent", "health", "--socket-dir", k.path("run"), "--wait", "30s"); err != nil {
		k.t.Fatalf("health: %v: %s", err, said)
	}
	k.t.Logf("%s is healthy after %s", filepath.Base(k.dir), time.Since(begun).Round(time.Millisecond))
}

// start runs a command of the image as the container of the pair, with that environment.
func (k *task) start(command, environ []string) {
	k.t.Helper()
	for dir, mode := range map[string]os.FileMode{"": 0o711, "data": 0o700, "run": 0o755} {
		if err := errors.Join(os.MkdirAll(k.path(dir), 0o711), os.Chmod(k.path(dir), mode), os.Chown(k.path(dir), taskUser, taskUser)); err != nil {
			k.t.Fatal(err)
		}
	}
	k.out = k.path("out.log")
	out, err := os.Create(k.out)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the task has its own
	words := strings.Fields(parts.OnHost(k.host) + " unshare --pid --fork --kill-child --mount-proc" + asTaskUser)
	k.cmd = exec.CommandContext(context.WithoutCancel(k.t.Context()), words[0], append(append(words[1:], k.image.signet), command...)...)
	k.cmd.Env = environ
	k.cmd.Stdout, k.cmd.Stderr = out, out
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	go func() { k.err = k.cmd.Wait(); close(k.ended) }() // ends with the process, which is killed below
	k.t.Cleanup(func() {
		if pid, err := k.running(); err == nil { // whose user is another: --kill-child does not hold for it
			_ = syscall.Kill(pid, syscall.SIGKILL) // all of its namespace, or it has ended a moment ago
		}
		_ = k.cmd.Process.Kill()
		<-k.ended
		if k.t.Failed() {
			said := k.said()
			k.t.Logf("the task said last:\n%s", said[max(0, len(said)-4000):])
		}
	})
}

var asTaskUser = fmt.Sprintf(" setpriv --reuid=%d --regid=%d --clear-groups", taskUser, taskUser)

func (k *task) path(name string) string { return filepath.Join(k.dir, name) }

func (k *task) said() string {
	said, _ := os.ReadFile(k.out)
	return string(said)
}

// container is a command as another container of the task.
func (k *task) container(args ...string) *exec.Cmd {
	words := strings.Fields(parts.OnHost(k.host) + asTaskUser)
	return exec.CommandContext(k.t.Context(), words[0], append(append(words[1:], k.image.signet), args...)...)
}

// signet runs a command to its end.
func (k *task) signet(args ...string) (string, error) {
	out, err := k.container(args...).CombinedOutput()
	return string(out), err
}

// stopper starts the container that is stopped before the application. What it returns stops it,
// and waits for its end.
func (k *task) stopper(command ...string) (stop func() (string, error)) {
	k.t.Helper()
	c := k.container(append(command, "--socket-dir", k.path("run"))...)
	var out strings.Builder
	c.Stdout = &out
	said, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	lines := bufio.NewReader(said)
	if line, err := lines.ReadString('\n'); err != nil || line != "waiting for SIGTERM\n" {
		k.t.Fatalf("%q, %v", line, err)
	}
	return func() (string, error) {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			return "", err
		}
		rest, err := io.ReadAll(lines)
		err = errors.Join(err, c.Wait()) // until then its output is being written
		return out.String() + string(rest), err
	}
}

// serve runs the task's application, and makes a client that calls out by the proxy.
func (k *task) serve(app http.Handler) {
	k.t.Helper()
	at, way := "127.0.0.1", http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:15001"})
	if k.platform.Redirects() {
		at, way = "0.0.0.0", nil
		k.routed()
	}
	var l net.Listener
	parts.FromHost(k.t, k.host, func() {
		var err error
		if l, err = net.Listen("tcp", fmt.Sprintf("%s:%d", at, meshtest.AppPort)); err != nil {
			k.t.Error(err)
		}
	})
	if l == nil {
		k.t.FailNow()
	}
	k.app = &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = k.app.Serve(l) }() // ends by Close
	k.t.Cleanup(func() { _ = k.app.Close() })
	dial := func(ctx context.Context, network, address string) (c net.Conn, err error) {
		if _, port, err := net.SplitHostPort(address); err == nil && way == nil { // names of services lead to made-up addresses
			address = net.JoinHostPort(nowhere, port)
		}
		parts.FromHost(k.t, k.host, func() { c, err = new(net.Dialer).DialContext(ctx, network, address) })
		return c, err
	}
	transport := &http.Transport{Proxy: way, DialContext: dial}
	k.t.Cleanup(transport.CloseIdleConnections)
	k.caller = &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

// first is the pid of the first process in the task's PID namespace.
func (k *task) first() int {
	k.t.Helper()
	pid, err := k.running()
	if err != nil {
		k.t.Fatal(err)
	}
	return pid
}

// running is that, and an error where it has ended.
func (k *task) running() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", k.cmd.Process.Pid, k.cmd.Process.Pid))
	pid, parse := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, errors.Join(err, parse)
}

// below are the processes below one, itself too.
func below(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	for _, c := range childrenOf(t, pid) {
		all = append(all, below(t, c)...)
	}
	return all
}

// memory is what the processes of the task have in memory, in MiB: their own, and the pages of each
// of their programs' files that the one has which has most of it, as if no other task had any.
func (k *task) memory() (own, files int) {
	k.t.Helper()
	most := map[string]int{}
	for _, pid := range below(k.t, k.first()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		program, err2 := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err := errors.Join(err, err2); err != nil {
			k.t.Fatal(err)
		}
		ofFiles := 0
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			switch n, _ := strconv.Atoi(f[1]); f[0] {
			case "Pss_Anon:", "Pss_Shmem:":
				own += n
			case "Rss:":
				ofFiles += n
			case "Anonymous:":
				ofFiles -= n
			}
		}
		most[program] = max(most[program], ofFiles)
	}
	for _, n := range most {
		files += n
	}
	return own >> 10, files >> 10
}

// end waits for the task's end, and returns its exit code.
func (k *task) end(bound time.Duration) int {
	k.t.Helper()
	select {
	case <-k.ended:
	case <-time.After(bound):
		k.t.Fatalf("the task does not end within %s", bound)
	}
	return k.cmd.ProcessState.ExitCode()
}

// shutDown is what an application does on SIGTERM that is well behaved: no new connections, and
// what is in flight is answered.
func (k *task) shutDown() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
	defer cancel()
	k.caller.CloseIdleConnections()
	if err := k.app.Shutdown(ctx); err != nil {
		k.t.Error(err)
	}
}

// callOut calls orders as the application, again and again until told to stop, and returns how
// many calls failed.
func (k *task) callOut(done <-chan struct{}) (calls, failed int) {
	for {
		select {
		case <-done:
			return calls, failed
		default:
		}
		calls++
		resp, err := k.caller.Get("http://" + meshtest.HostOf("orders") + "/")
		if err != nil || resp.StatusCode != http.StatusOK {
			failed++
		}
		if err == nil {
			_ = resp.Body.Close() // the status was wanted
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestATaskStopsWithoutAFailedRequestInBothOrders: one of two replicas is a task. Its
// containers are told to stop one after the other, as where they depend on each other, or all
// at once.
func TestATaskStopsWithoutAFailedRequestInBothOrders(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	for _, address := range []string{ordersHost, frontHost} {
		if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", address+"/24", "dev", "wire").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	web := meshtest.VirtualNode("web", meshtest.Strict("test.example", "web"), "orders") + "  logging: {accessLog: {file: {path: /dev/stdout}}}\n"
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"front", "web", "orders"}, Binds: map[string]string{"web": parts.ThisHost, "orders": ordersHost, "front": frontHost}, NoAgent: true,
		Applications: map[string]string{"web": "namespace"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "web"), web, meshtest.VirtualNode("orders", ""),
			meshtest.ServiceOfNode("web", "web"), meshtest.ServiceOfNode("orders", "orders")),
	})
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {addresses: [\"10.231.0.0/24\"]}\n")
	w.StartAgent()
	w.AwaitProxies()
	image := image{w.Place(w.Program(), "signet-task"), w.PlaceEnvoy()}
	page := "http://" + meshtest.HostOf("web") + "/"
	answers := func(name string) func() bool {
		return func() bool { return w.Get("front", page).Seen.Service == name }
	}
	eventually(t, 20*time.Second, "the replica on this host answers", answers("web"))

	t.Run("one after the other", func(t *testing.T) {
		k := startTask(t, w, image, "task-a")
		stop := k.stopper("agent", "stop", "--on-term")
		eventually(t, 20*time.Second, "the task answers", answers("task-a"))
		load := w.StartLoad("front", page, 100)
		time.Sleep(time.Second)
		if own, files := k.memory(); own > 150 {
			t.Errorf("the pair has %d MiB of its own", own)
		} else {
			t.Logf("under load the pair has %d MiB of its own, and %d MiB of its programs' files", own, files)
		}
		if said, err := stop(); err != nil || !strings.HasPrefix(said, "callers have gone elsewhere; ") {
			t.Fatalf("stop: %v: %s", err, said)
		}
		k.shutDown()
		if code := k.end(30 * time.Second); code != 0 {
			t.Errorf("exit code %d", code)
		}
		time.Sleep(500 * time.Millisecond)
		if r := load.Stop(); r.Failed > 0 || r.Sent < 200 {
			t.Errorf("%+v", r)
		}
		if !strings.Contains(k.said(), "\n[20") || !strings.Contains(k.said(), `"GET / HTTP/1.1" 200`) {
			t.Error("no access log as it is written")
		}
	})
	t.Run("all at once", func(t *testing.T) {
		k := startTask(t, w, image, "task-b")
		eventually(t, 20*time.Second, "the task answers", answers("task-b"))
		load := w.StartLoad("front", page, 100)
		time.Sleep(time.Second)
		done, out := make(chan struct{}), make(chan [2]int)
		go func() { calls, failed := k.callOut(done); out <- [2]int{calls, failed} }()
		begun := time.Now()
		if err := syscall.Kill(k.first(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // the application has work left
		close(done)
		if n := <-out; n[0] < 20 || n[1] > 0 {
			t.Errorf("%d of %d calls of the stopping application failed", n[1], n[0])
		}
		select {
		case <-k.ended:
			t.Error("the proxy ended before its application")
		default:
		}
		k.shutDown()
		if code := k.end(10 * time.Second); code != 0 {
			t.Errorf("exit code %d", code)
		}
		t.Logf("ended after %s", time.Since(begun).Round(time.Millisecond))
		if r := load.Stop(); r.Failed > 0 || r.Sent < 200 {
			t.Errorf("%+v", r)
		}
	})
}
