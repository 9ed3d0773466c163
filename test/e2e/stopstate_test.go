package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// stoppedAgent is an agent that is told to stop in one state of its parts.
type stoppedAgent struct {
	t        *testing.T
	w        *meshtest.World
	dir      string
	cmd      *exec.Cmd
	ended    chan struct{}
	children map[int]bool // all that were seen
}

// usually is a ceiling: what is told here has a second or two to do.
const usually = 20 * time.Second

// stopStates has how an agent comes to a state, and within which time it then ends with 0.
var stopStates = []struct {
	name   string
	keys   map[string]string // of its file, in the place of those of the World
	become func(a *stoppedAgent)
	within time.Duration
}{
	{name: "ready", become: (*stoppedAgent).awaitReady, within: usually},
	{name: "told twice", become: func(a *stoppedAgent) { a.awaitReady(); a.tell() }, within: usually},
	{name: "authz killed", become: func(a *stoppedAgent) { a.awaitReady(); a.signal("authz", syscall.SIGKILL) }, within: usually},
	{name: "authz hangs", become: func(a *stoppedAgent) { a.awaitReady(); a.signal("authz", syscall.SIGSTOP) }, within: usually},
	{name: "authz hangs before it has loaded a policy", become: func(a *stoppedAgent) { a.signal("authz", syscall.SIGSTOP); a.awaitJoined() }, within: usually},
	{name: "Envoy killed", become: func(a *stoppedAgent) { a.awaitReady(); a.signal("envoy", syscall.SIGKILL) }, within: usually},
	// It has 2 s to say that it drains, and 5 to end.
	{name: "Envoy hangs", become: func(a *stoppedAgent) { a.awaitReady(); a.signal("envoy", syscall.SIGSTOP) }, within: usually + 7*time.Second},
	{name: "Envoy crashes at each start", keys: map[string]string{"envoy": "crashing"}, become: (*stoppedAgent).awaitCrash, within: usually},
	{name: "no proxy is bound", keys: map[string]string{"proxies": "[{name: other, mesh: test, virtual_node: other, bind: 127.0.0.9}]"}, become: (*stoppedAgent).awaitJoined, within: usually},
	{name: "the server hangs", become: func(a *stoppedAgent) { a.awaitReady(); a.hangServer() }, within: usually},
	{name: "the server is killed", become: func(a *stoppedAgent) { a.awaitReady(); a.killServer() }, within: usually},
	{name: "no server is reached", keys: map[string]string{"server": "127.0.0.1:9"}, become: (*stoppedAgent).awaitAsking, within: usually},
	{name: "the server never answers", keys: map[string]string{"server": "silent"}, become: (*stoppedAgent).awaitAsking, within: usually},
}

// Told to stop, an agent ends with 0 in time in whichever state its parts are, and leaves nothing behind.
func TestAnAgentThatIsToldToStopEndsInEveryStateOfItsParts(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web"}, NoAgent: true, AgentExtra: "drain_requests: 1s\n",
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "web"), meshtest.ServiceOfNode("web", "web")),
	})
	for i, s := range stopStates {
		t.Run(s.name, func(t *testing.T) {
			a := startStopped(t, w, fmt.Sprint("stop", i), s.keys)
			s.become(a)
			a.see()
			begun := time.Now()
			a.tell()
			a.awaitEnd(s.within)
			t.Logf("it has ended after %s", time.Since(begun).Round(10*time.Millisecond))
			a.checkNothingLeft()
		})
	}
}

// startStopped starts an agent with folders of its own, and its file with these keys.
func startStopped(t *testing.T, w *meshtest.World, name string, keys map[string]string) *stoppedAgent {
	t.Helper()
	path, token := w.AgentConfig()
	a := &stoppedAgent{t: t, w: w, dir: filepath.Join(w.Dir, name), ended: make(chan struct{}), children: map[int]bool{}}
	if err := os.Mkdir(a.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keys = maps.Clone(keys)
	if keys == nil {
		keys = map[string]string{}
	}
	keys["data_dir"], keys["socket_dir"], keys["drain_time"] = filepath.Join(a.dir, "data"), a.sockets(), "300ms"
	if keys["server"] == "silent" {
		l, err := net.Listen("tcp", "127.0.0.1:0") // whoever connects waits in its queue
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		keys["server"] = l.Addr().String()
	}
	if keys["envoy"] == "crashing" {
		keys["envoy"] = filepath.Join(a.dir, "envoy")
		if err := os.WriteFile(keys["envoy"], []byte("#!/bin/sh\n[ \"$1\" = --version ] && echo envoy version: 0/1.40.0/Clean/RELEASE/BoringSSL\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := readFile(t, path)
	for key, value := range keys {
		form := `(?m)^` + key + `:.*\n`
		if key == "proxies" {
			form = `(?m)^proxies:\n(- .*\n)*`
		}
		text = regexp.MustCompile(form).ReplaceAllLiteralString(text, key+": "+value+"\n")
	}
	file := filepath.Join(a.dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(a.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the agent has its own
	a.cmd = exec.Command(w.Program(), "agent", "--config", file)
	a.cmd.Env = append(os.Environ(), token)
	a.cmd.Stdout, a.cmd.Stderr = out, out
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = a.cmd.Wait(); close(a.ended) }() // ends with the process, which is killed below
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // its children end with it
		<-a.ended
		if t.Failed() {
			t.Logf("its log:\n%s", a.log())
		}
	})
	return a
}

func (a *stoppedAgent) sockets() string { return filepath.Join(a.dir, "run") }

func (a *stoppedAgent) log() string { return readFile(a.t, filepath.Join(a.dir, "log")) }

func (a *stoppedAgent) await(what string, ready func() bool) {
	a.t.Helper()
	eventually(a.t, 30*time.Second, what, ready)
}

func (a *stoppedAgent) awaitReady() {
	a.t.Helper()
	a.await("a proxy that is ready", func() bool { return strings.Contains(a.log(), `msg="envoy ready"`) })
}

func (a *stoppedAgent) awaitJoined() {
	a.t.Helper()
	a.await("an agent that has joined", func() bool {
		return strings.Contains(a.log(), `msg="agent ready"`) && strings.Contains(a.log(), `msg="envoy`)
	})
}

func (a *stoppedAgent) awaitCrash() {
	a.t.Helper()
	a.await("a proxy that waits to be started again", func() bool { return strings.Contains(a.log(), `msg="envoy ended, restarting"`) })
}

// awaitAsking waits until it has its sockets: it asks its server then.
func (a *stoppedAgent) awaitAsking() {
	a.t.Helper()
	a.await("its sockets", func() bool { _, err := os.Stat(filepath.Join(a.sockets(), "xds.sock")); return err == nil })
	time.Sleep(300 * time.Millisecond)
}

// tell sends SIGTERM to the agent alone.
func (a *stoppedAgent) tell() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Error(err)
	}
}

// see notes the children that there are.
func (a *stoppedAgent) see() {
	for _, pid := range childrenOf(a.t, a.cmd.Process.Pid) {
		a.children[pid] = true
	}
}

// signal sends one to the agent's child of that program, as soon as it is there.
func (a *stoppedAgent) signal(program string, s syscall.Signal) {
	a.t.Helper()
	a.await(program, func() bool {
		for _, pid := range childrenOf(a.t, a.cmd.Process.Pid) {
			words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			isEnvoy := strings.Contains(string(words), "--service-node")
			if err == nil && (program == "envoy") == isEnvoy && (isEnvoy || strings.Contains(string(words), program)) {
				a.children[pid] = true
				return syscall.Kill(pid, s) == nil
			}
		}
		return false
	})
}

func (a *stoppedAgent) hangServer() {
	pid := a.w.Server.PID()
	a.t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		a.t.Fatal(err)
	}
}

func (a *stoppedAgent) killServer() {
	a.w.KillServer()
	a.t.Cleanup(a.w.StartServer)
}

func (a *stoppedAgent) awaitEnd(within time.Duration) {
	a.t.Helper()
	late := time.After(within)
	for look := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-look.C:
			a.see()
			continue
		case <-late:
			a.t.Errorf("it has not ended after %s", within)
		case <-a.ended:
			if code := a.cmd.ProcessState.ExitCode(); code != 0 {
				a.t.Errorf("it has ended with %d", code)
			}
		}
		look.Stop()
		return
	}
}

// checkNothingLeft: no child, and in its folder of sockets no file.
func (a *stoppedAgent) checkNothingLeft() {
	a.t.Helper()
	eventually(a.t, 2*time.Second, "the end of its children", func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Keys(a.children)), running)
	})
	err := filepath.WalkDir(a.sockets(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			a.t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.t.Error(err)
	}
}
