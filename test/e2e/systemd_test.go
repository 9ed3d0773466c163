package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// booted is systemd as the first process of a container, with the agent's unit and
// configuration of docs/AGENT.md: users, folders and programs are where the page has them.
type booted struct {
	t      *testing.T
	w      *meshtest.World
	p      *parts.Podman
	etc    string
	config string // as it was written
}

// lateBind and lateApp are of the proxy that a reload adds; letOut is what its
// application is told then.
const lateBind, lateApp, letOut = "127.0.0.52", "127.0.0.61", "404 <nil>"

// Users of the pages, by the numbers that they get here.
const agentUser, envoyUser, authzUser, serverUser, signerUser = 59031, 59032, 59033, 59034, 59035

// blockOf is the nth block of a language on a page of docs.
func blockOf(t *testing.T, page, language string, nth int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(parts.Root(), "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) <= nth {
		t.Fatalf("docs/%s has %d blocks of %s", page, len(blocks), language)
	}
	return string(blocks[nth][1])
}

// boot starts systemd. The agent connects to server, and its proxy listens at bind.
func boot(t *testing.T, w *meshtest.World, p *parts.Podman, server, bind string, files map[string]string, volumes ...string) *booted {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &booted{t: t, w: w, p: p, etc: filepath.Join(w.Dir, "etc")}
	b.config = "drain_time: 1s\n" + strings.NewReplacer("mesh.prod.example:8443", server, "mesh: shop", "mesh: test", "bind: 10.0.0.7", "bind: "+bind).Replace(blockOf(t, "AGENT.md", "yaml", 0))
	w.Place(w.Program(), "signet")
	programs := filepath.Dir(w.PlaceEnvoy())
	logs := filepath.Join(w.Dir, "log")
	users, groups := "root:x:0:0::/root:/bin/sh\n", "root:x:0:\n"
	for name, id := range map[string]int{"signet-agent": agentUser, "signet-envoy": envoyUser, "signet-authz": authzUser, "signet": serverUser, "signet-signer": signerUser} {
		users += fmt.Sprintf("%s:x:%d:%[2]d::/:/bin/false\n", name, id)
		groups += fmt.Sprintf("%s:x:%d:\n", name, id)
	}
	err = errors.Join(os.MkdirAll(filepath.Join(b.etc, "signet"), 0o755), os.MkdirAll(filepath.Join(b.etc, "systemd", "system"), 0o755),
		os.Mkdir(logs, 0o750), os.Chown(logs, envoyUser, envoyUser))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": users, "group": groups, "machine-id": strings.Repeat("5", 32) + "\n",
		"signet/agent.yaml": b.config, "systemd/system/signet-agent.service": blockOf(t, "AGENT.md", "ini", 0),
	} {
		b.write(name, text)
	}
	for name, text := range files {
		b.write(name, text)
	}
	// Not --privileged: it would set this machine's sysctls.
	args := []string{"run", "--detach", "--name", "host", "--systemd", "always", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--network", "host"}
	for _, name := range []string{"bin", "sbin", "lib", "lib64", "share"} {
		volumes = append(volumes, "/usr/"+name+":/usr/"+name+":ro")
	}
	for _, v := range append(volumes, self+":/opt/application:ro", programs+":/usr/local/bin:ro", b.etc+":/etc", logs+":/var/log/signet-envoy") {
		args = append(args, "--volume", v)
	}
	p.Do(append(args, parts.BareImage, "/usr/lib/systemd/systemd", "--unit=sysinit.target")...)
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := p.Try("exec", "host", "journalctl", "--no-pager", "-n", "100")
			t.Log(said)
		}
	})
	eventually(t, 30*time.Second, "systemd has started", func() bool {
		state, _ := p.Try("exec", "host", "systemctl", "is-system-running") // degraded is an error
		return state == "running" || state == "degraded"
	})
	return b
}

// token puts a join token where the page has it.
func (b *booted) token(text string) {
	b.t.Helper()
	b.write("signet/token", text)
	file := filepath.Join(b.etc, "signet", "token")
	if err := errors.Join(os.Chmod(file, 0o600), os.Chown(file, agentUser, agentUser)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *booted) systemctl(args ...string) string {
	b.t.Helper()
	return b.p.Do(append([]string{"exec", "host", "systemctl"}, args...)...)
}

func (b *booted) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.etc, name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// run starts an application as a service of its own.
func (b *booted) run(name, at, how string) {
	b.t.Helper()
	b.write("systemd/system/"+name+".service", fmt.Sprintf("[Service]\n%s\nEnvironment=\"%s=%s:8080 %s:15001\"\nExecStart=/opt/application\n", how, containedEnv, at, lateBind))
	b.systemctl("daemon-reload")
	b.systemctl("start", name)
}

// asks is what an application was answered by the way out.
func (b *booted) asks(app string) (answer string) {
	b.t.Helper()
	eventually(b.t, 10*time.Second, "an application at "+app, func() bool {
		resp, err := http.Get("http://" + app + ":8080/out")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }() // read
		said, err := io.ReadAll(resp.Body)
		answer = string(said)
		return err == nil
	})
	return answer
}

// property of the agent's unit.
func (b *booted) property(name string) string {
	b.t.Helper()
	return b.systemctl("show", "--property", name, "--value", "signet-agent")
}

func (b *booted) ready(what string) {
	b.t.Helper()
	b.w.Await("the proxy, "+what, 20*time.Second, func() error {
		if s := b.w.ProxyStates()["web"]; s != api.ProxyStatus_READY {
			return fmt.Errorf("it is %s", api.Word(s))
		}
		status, err := b.call(b.t.Context(), "/")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("it answers %d", status)
		}
		return err
	})
}

// call the application through its proxy, on a connection of its own.
func (b *booted) call(ctx context.Context, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(parts.ThisHost, "8080")+path, nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// inFlight has three slow requests answered while do runs.
func (b *booted) inFlight(what string, app arrivals, do func()) {
	b.t.Helper()
	answers := make(chan error, 3)
	for range cap(answers) {
		go func() {
			status, err := b.call(b.t.Context(), "/slow")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d", status)
			}
			answers <- err
		}()
	}
	for range cap(answers) {
		select {
		case <-app.arrived:
		case <-time.After(10 * time.Second):
			b.t.Fatal("the slow requests do not arrive")
		}
	}
	do()
	for range cap(answers) {
		if err := <-answers; err != nil {
			b.t.Errorf("in flight at %s: %v", what, err)
		}
	}
}

// TestSystemdRunsTheUnitOfTheAgentsPage starts, reloads, stops, kills and upgrades the
// agent by the unit of docs/AGENT.md under a real systemd.
func TestSystemdRunsTheUnitOfTheAgentsPage(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	p := parts.Containers(t)
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", NoAgent: true,
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", ""), meshtest.VirtualNode("late", "")),
	})
	for _, n := range []string{"web", "late"} {
		w.Apply(fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s-proxy}\nspec: {group: hosts, mesh: test, virtualNode: %[1]s, selectors: [\"signet:proxy:%[1]s\"]}\n", n))
	}
	app := arrivals{arrived: make(chan struct{}, 16), by: 1300 * time.Millisecond, next: meshtest.Echo("web")}
	serveApp(t, app)
	server, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	b := boot(t, w, p, server.Agents, parts.ThisHost, nil)
	b.token(w.Token())

	b.systemctl("start", "signet-agent")
	b.ready("at the start")
	if err := os.Remove(filepath.Join(b.etc, "signet", "token")); err != nil { // it is needed once
		t.Fatal(err)
	}
	before := agentIDs(t, w)

	t.Run("reload", func(t *testing.T) {
		b.write("signet/agent.yaml", b.config+"  - {name: late, mesh: test, virtual_node: late, bind: "+lateBind+", app: "+lateApp+"}\n")
		b.run("late", lateApp, "DynamicUser=yes")
		pid := b.property("MainPID")
		b.systemctl("reload", "signet-agent")
		calls := 0
		eventually(t, 15*time.Second, "the proxy that was added", func() bool {
			if status, err := b.call(t.Context(), "/"); err != nil || status != http.StatusOK {
				t.Errorf("during the reload: %d, %v", status, err)
			}
			calls++
			status, err := rawCallTo(lateBind+":8080", "http://late/")
			return err == nil && status == http.StatusOK
		})
		if now := b.property("MainPID"); now != pid {
			t.Errorf("the agent was process %s, and is %s", pid, now)
		}
		t.Logf("%d calls meanwhile", calls)
	})
	t.Run("an application with DynamicUser", func(t *testing.T) {
		out := lateBind + ":15001"
		if got := b.asks(lateApp); got != letOut {
			t.Errorf("it was answered %q", got)
		}
		uid, err := strconv.Atoi(p.Do("exec", "host", "stat", "--format", "%u", "/proc/"+b.systemctl("show", "--property", "MainPID", "--value", "late")))
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what string) {
			t.Helper()
			if status, err := callAs(t, uid, out, "/"); err == nil {
				t.Errorf("a process of user %d outside of the service, %s: %d", uid, what, status)
			}
		}
		refused("beside it")
		b.run("other", "127.0.0.63", "DynamicUser=yes")
		if got := b.asks("127.0.0.63"); got == letOut {
			t.Error("another service with DynamicUser was let out")
		}
		b.systemctl("stop", "late")
		refused("while it is down")
		b.systemctl("start", "late")
		if got := b.asks(lateApp); got != letOut {
			t.Errorf("started again it was answered %q", got)
		}
	})
	t.Run("stop", func(t *testing.T) {
		b.inFlight("the stop", app, func() { b.systemctl("stop", "signet-agent") })
		if got := b.property("Result") + " " + b.property("ActiveState"); got != "success inactive" {
			t.Error(got)
		}
		if left, err := p.Try("exec", "host", "cat", "/sys/fs/cgroup/system.slice/signet-agent.service/cgroup.procs"); err == nil && left != "" {
			t.Errorf("processes are left: %s", left)
		}
		b.systemctl("start", "signet-agent")
		b.ready("after a stop, without a token")
	})
	t.Run("kill -9", func(t *testing.T) {
		pid := b.property("MainPID")
		b.systemctl("kill", "--kill-who", "main", "--signal", "KILL", "signet-agent")
		began := time.Now()
		eventually(t, 15*time.Second, "another process", func() bool { now := b.property("MainPID"); return now != "0" && now != pid })
		b.ready("after a kill")
		t.Logf("ready %s after the kill", time.Since(began))
	})
	t.Run("upgrade", func(t *testing.T) {
		// Another program in the place of the old one, as install(1) leaves it.
		next := w.Place(w.Program(), "signet.new")
		if err := os.Rename(next, filepath.Join(filepath.Dir(next), "signet")); err != nil {
			t.Fatal(err)
		}
		b.inFlight("the upgrade", app, func() { b.systemctl("restart", "signet-agent") })
		b.ready("after the upgrade")
		info, err := os.Stat(filepath.Join(filepath.Dir(next), "signet"))
		if err != nil {
			t.Fatal(err)
		}
		runs := p.Do("exec", "host", "stat", "--dereference", "--format", "%i", "/proc/"+b.property("MainPID")+"/exe")
		if installed := fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino); runs != installed { //nolint:forcetypeassert // Linux
			t.Errorf("file %s runs, and %s is installed", runs, installed)
		}
	})
	if after := agentIDs(t, w); after != before || strings.Contains(after, " ") {
		t.Errorf("agents were %q and are %q", before, after)
	}
}

// serveApp serves where the page's proxy has its application.
func serveApp(t *testing.T, app http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close() })
}

// TestSystemdRunsTheUnitsOfTheSignersPage has server, signer and agent run by the units
// and files of docs/SIGNER.md and docs/AGENT.md: certificates are issued and policies read.
func TestSystemdRunsTheUnitsOfTheSignersPage(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	p := parts.Containers(t)
	w := meshtest.Prepare(t, meshtest.Options{})
	serveApp(t, meshtest.Echo("web"))
	const bind = "127.0.0.71"
	repo := w.CommitPolicy(map[string]string{"all.rego": meshtest.AllowAll})
	b := boot(t, w, p, "127.0.0.1:8443", bind, map[string]string{
		"systemd/system/signet-signer.service": blockOf(t, "SIGNER.md", "ini", 0), "systemd/system/signet-server.service": blockOf(t, "SIGNER.md", "ini", 1),
		"signet/server.yaml": blockOf(t, "SIGNER.md", "yaml", 0),
		"signet/mesh.yaml": meshtest.Join("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {}\n", meshtest.Mesh(), meshtest.VirtualNode("web", ""),
			"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web-proxy}\nspec: {group: hosts, mesh: test, virtualNode: web, selectors: [\"signet:proxy:web\"]}\n",
			"apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: policy}\nspec: {url: \"file:///srv/policy\", branch: main, poll: 60s}\n"),
	}, repo+":/srv/policy:ro")
	signet := func(args ...string) string {
		t.Helper()
		return p.Do(append([]string{"exec", "host", "signet"}, args...)...)
	}
	signet("init", "--trust-domain", "prod.example", "--data-dir", "/var/lib/signet", "--signer-dir", "/var/lib/signet-signer")
	p.Do("exec", "host", "chown", "-R", "signet:", "/var/lib/signet")
	p.Do("exec", "host", "chown", "-R", "signet-signer:", "/var/lib/signet-signer")
	b.systemctl("start", "signet-signer", "signet-server") // both say when they are ready
	signet("apply", "-f", "/etc/signet/mesh.yaml")
	if said := signet("policy", "sync"); !strings.Contains(said, "policy") {
		t.Errorf("signet policy sync: %s", said)
	}
	signet("token", "create", "--group", "hosts", "--out", "/etc/signet/token")
	p.Do("exec", "host", "chown", "signet-agent:", "/etc/signet/token")
	b.systemctl("start", "signet-agent")
	served := func(what string) {
		t.Helper()
		eventually(t, 20*time.Second, what, func() bool {
			status, err := rawCallTo(bind+":8080", "http://web/")
			return err == nil && status == http.StatusOK
		})
	}
	served("a call through the proxy")
	b.systemctl("restart", "signet-signer")
	b.systemctl("restart", "signet-server")
	served("a call after both came back")
	for _, unit := range []string{"signet-agent", "signet-server", "signet-signer"} {
		b.systemctl("stop", unit)
		if got := b.systemctl("show", "--property", "Result,NRestarts", "--value", unit); got != "success\n0" && got != "0\nsuccess" {
			t.Errorf("%s: %q", unit, got)
		}
	}
}

// agentIDs are those that ever joined.
func agentIDs(t *testing.T, w *meshtest.World) string {
	t.Helper()
	answer, err := w.Admin.Agents(w.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, a := range answer.GetAgents() {
		ids = append(ids, a.GetId())
	}
	return strings.Join(ids, " ")
}
