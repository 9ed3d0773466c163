package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"signet.example/test/frozen"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// mostLines are what a conversion may write.
const mostLines = 12

// convert has a definition converted by the command, and applies the objects that it writes.
func (r *rolling) convert(file string, more ...string) (d parts.TaskDefinition) {
	t := r.t
	t.Helper()
	server, err := r.w.Addresses(r.w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	var made struct {
		Definition, Objects string
		Written             int
	}
	out, said, code := r.w.CLISplit(append([]string{
		"ecs", "convert", filepath.Join("testdata", "tasks", file), "--server", server.Agents,
		"--trust", filepath.Join(r.w.ServerDir(), "ca", "root.crt"), "--image", "signet-agent", "-o", "json",
	}, more...)...)
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		t.Fatalf("%s: %d, %v: %s", file, code, err, said)
	}
	if made.Written > mostLines || made.Written == 0 {
		t.Errorf("%s: %d lines are written", file, made.Written)
	}
	r.w.Apply(made.Objects)
	return parts.ReadTaskDefinition(t, file, made.Definition)
}

// convertedTask is a task of a converted definition.
type convertedTask struct {
	*task
	free     func()
	told     func() (string, error) // stops the container that is stopped first
	outlived time.Duration          // for which its application goes on when all are told at once
}

// converted starts one as ECS does: the pair, when that is healthy the application, and the
// container that is stopped first when that has started.
func (r *rolling) converted(s *rolled) revision {
	host := <-r.hosts
	proxy, stop := s.def.Container(r.t, "envoy"), s.def.Container(r.t, "signet-stop")
	k := &task{
		t: r.t, host: host, image: r.image, platform: s.def.ProxyConfiguration,
		dir: filepath.Join(r.w.Dir, fmt.Sprintf("%s-%d", s.name, s.started)), ended: make(chan struct{}),
	}
	k.redirect("up")
	given := r.aws.Environment(r.aws.ARN(s.name + "-task"))
	maps.Copy(given, map[string]string{ // what is the image's, or the platform's
		"PATH": os.Getenv("PATH"), "SIGNET_SOCKET_DIR": k.path("run"), "SIGNET_DATA_DIR": k.path("data"), "SIGNET_ENVOY": k.image.envoy, "SIGNET_JOIN_AWS_TASK_ENDPOINT": r.aws.URL(),
		"ECS_CONTAINER_METADATA_URI_V4": onECS(r.t, host, s.name, addressOf(host)),
	})
	begun := time.Now()
	k.start(proxy.Command, proxy.Environ(given))
	r.w.Await(s.name+" is HEALTHY", time.Minute, func() error {
		time.Sleep(time.Duration(proxy.HealthCheck.Interval) * time.Second) // ECS waits so long before each
		_, err := k.signet(append(slices.Clone(proxy.HealthCheck.Command[2:]), "--socket-dir", k.path("run"))...)
		return err
	})
	k.redirect("check")
	r.mu.Lock()
	r.healthy = append(r.healthy, time.Since(begun))
	r.mu.Unlock()
	k.serve(r.serve(s, func() *http.Client { return k.caller }))
	return &convertedTask{k, func() { r.hosts <- host }, k.stopper(stop.Command...), 10 * time.Second}
}

func (c *convertedTask) address() string { return addressOf(c.host) }

func addressOf(host int) string { return fmt.Sprintf("10.231.0.%d", host) }

func (c *convertedTask) stop(o order) error {
	defer func() {
		c.redirect("down")
		c.free()
	}()
	if o == applicationFirst {
		said, err := c.told()
		if err == nil && !strings.HasPrefix(said, "callers have gone elsewhere") {
			err = errors.New("it ended before its callers had gone")
		}
		if err != nil {
			return fmt.Errorf("signet-stop: %w: %s", err, said)
		}
		c.shutDown()
		if pid, err := c.running(); err == nil { // it ends with its application
			_ = syscall.Kill(pid, syscall.SIGTERM) // or has a moment ago
		}
	} else {
		stopped := make(chan error, 1)
		go func() { _, err := c.told(); stopped <- err }() // as it is told with the others
		if err := syscall.Kill(c.first(), syscall.SIGTERM); err != nil {
			return err
		}
		time.Sleep(c.outlived)
		c.shutDown()
		if err := <-stopped; err != nil {
			return fmt.Errorf("signet-stop: %w", err)
		}
	}
	if code := c.end(30 * time.Second); code != 0 {
		return fmt.Errorf("exit code %d", code)
	}
	return nil
}

// measure notes what the pair of a task has in memory under load.
func (r *rolling) measure(of revision) {
	if c, ok := of.(*convertedTask); ok {
		own, files := c.memory()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.own, r.files = append(r.own, own), append(r.files, files)
	}
}

const (
	mostOwn     = 150              // MiB
	mostHealthy = 10 * time.Second // half of all, as hosts are
)

// report holds what was measured to its bounds.
func (r *rolling) report() {
	slices.Sort(r.healthy)
	slices.Sort(r.own)
	slices.Sort(r.files)
	half, last := len(r.healthy)/2, len(r.healthy)-1
	r.t.Logf("HEALTHY after %s (half), %s (all)", r.healthy[half].Round(time.Millisecond), r.healthy[last].Round(time.Millisecond))
	if r.healthy[half] > mostHealthy {
		r.t.Errorf("HEALTHY after %s", r.healthy[half])
	}
	last = len(r.own) - 1
	r.t.Logf("a pair under load: at most %d MiB of its own, %d MiB of its programs' files", r.own[last], r.files[last])
	if r.own[last] > mostOwn {
		r.t.Errorf("a pair has %d MiB of its own", r.own[last])
	}
}

// frozenTask is a task as it was: an Envoy as App Mesh left it, and the application.
type frozenTask struct {
	t    context.Context
	host int
	cmd  *exec.Cmd
	app  *http.Server
	free func()
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// startFrozen starts an Envoy of App Mesh on a host.
func (r *rolling) startFrozen(host int, name string, n frozen.Node) *exec.Cmd {
	r.t.Helper()
	text, err := json.Marshal(n.Bootstrap())
	file := filepath.Join(r.w.Dir, name+".json")
	if err := errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		r.t.Fatal(err)
	}
	words := []string{r.image.envoy, "--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c", file}
	if host > 1 {
		words = append(strings.Fields(parts.OnHost(host)), words...)
	}
	cmd := exec.CommandContext(context.WithoutCancel(r.t.Context()), words[0], words[1:]...)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // where it has not ended
		_ = cmd.Wait()         // it was killed
	})
	return cmd
}

// frozen starts a task with App Mesh's Envoy.
func (r *rolling) frozen(s *rolled) revision {
	host := <-r.hosts
	k := &task{t: r.t, host: host}
	k.serve(r.serve(s, nil))
	f := &frozenTask{
		t: r.t.Context(), host: host, app: k.app, free: func() { r.hosts <- host }, dial: k.caller.Transport.(*http.Transport).DialContext,
		cmd: r.startFrozen(host, fmt.Sprintf("%s-%d", s.name, s.started), frozen.Node{Name: s.name, At: addressOf(host), Inside: "127.0.0.1"}),
	}
	r.w.Await(s.name+" answers", 20*time.Second, func() error {
		c, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(f.address()), meshtest.AppPort).String())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return f
}

func (f *frozenTask) address() string { return addressOf(f.host) }

// stop is what App Mesh's agent did: callers are told by each answer to go elsewhere.
func (f *frozenTask) stop(order) error {
	defer f.free()
	admin := &http.Client{Transport: &http.Transport{DialContext: f.dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := admin.Post("http://127.0.0.1:9901/healthcheck/fail", "", nil)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // nothing is in it
	time.Sleep(remembered + 2*time.Second)
	err = errors.Join(f.cmd.Process.Kill(), f.app.Close())
	_ = f.cmd.Wait() // it was killed
	return err
}

// startNeighbour has a service on this host that has not moved: its Envoy goes where names lead.
func (r *rolling) startNeighbour() {
	t := r.t
	t.Helper()
	resolv := filepath.Join(r.w.Dir, "resolv.conf")
	// This process and its children are in a mount namespace of their own.
	if err := errors.Join(os.WriteFile(resolv, []byte("nameserver "+parts.ThisHost+"\n"), 0o600), unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	parts.Nameserver(t, netip.MustParseAddrPort(parts.ThisHost+":53"), func(name string, q dnsmessage.Type) (netip.Addr, bool) {
		if q != dnsmessage.TypeA {
			return netip.Addr{}, true
		}
		return r.names.answer(strings.TrimSuffix(name, ".test.internal.")), true
	})
	behind(t, parts.ThisHost, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r.names.add(controlName, netip.MustParseAddr(parts.ThisHost))
	backends := map[string]string{controlName: meshtest.HostOf(controlName)}
	for name := range r.by {
		backends[name] = meshtest.HostOf(name)
	}
	r.startFrozen(1, "neighbour", frozen.Node{Name: "neighbour", Inside: neighbourInside, Backends: backends})
	r.w.Await("the neighbour's way out", 20*time.Second, func() error {
		c, err := net.Dial("tcp", neighbourInside+":15001")
		if err == nil {
			err = c.Close()
		}
		return err
	})
}
