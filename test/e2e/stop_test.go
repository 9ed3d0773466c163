package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// arrivals is an application that says when a request has arrived, and answers later.
type arrivals struct {
	arrived chan struct{}
	by      time.Duration
	next    http.Handler
}

func (a arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/slow" {
		a.arrived <- struct{}{}
		time.Sleep(a.by)
	}
	a.next.ServeHTTP(w, r)
}

// stopping is a way to run the agent and to stop it, as far as the kernel or a
// service manager does that; stop is given the agent's pid.
type stopping struct {
	start func(t *testing.T, w *meshtest.World) (stop func(agent int) error)
}

func (s stopping) run(t *testing.T, w *meshtest.World, app arrivals) {
	stop := s.start(t, w)
	w.AwaitAgent()
	w.AwaitRoute("front", host+"/orders")
	agent := agentPID(t, w)
	all := childrenOf(t, agent)
	if len(all) != 3 {
		t.Fatalf("%d children of the agent, want two Envoys and authz", len(all))
	}
	type answer struct {
		status int
		denied string
		err    error
	}
	answered := make(chan answer, 3)
	client := w.Client("front")
	for range cap(answered) {
		go func() {
			a, err := meshtest.Do(t, client, "GET", host+"/slow")
			answered <- answer{a.Status, a.Denied, err}
		}()
	}
	for range cap(answered) {
		select {
		case <-app.arrived:
		case <-time.After(10 * time.Second):
			t.Fatal("the slow requests do not arrive")
		}
	}
	if err := stop(agent); err != nil {
		t.Fatal(err)
	}
	for range cap(answered) {
		if a := <-answered; a.err != nil || a.status != 200 {
			t.Errorf("what was in flight when the agent was stopped: %d %s %v", a.status, a.denied, a.err)
		}
	}
	eventually(t, 15*time.Second, "the end of the agent and its children", func() bool {
		return !slices.ContainsFunc(append(all, agent), running)
	})
}

func running(pid int) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(state), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

// agentPID finds the agent by the configuration on its command line.
func agentPID(t *testing.T, w *meshtest.World) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		content, err := os.ReadFile(name)
		words := strings.Split(string(content), "\x00")
		if err == nil && len(words) > 2 && words[1] == "agent" && strings.HasPrefix(words[len(words)-2], w.Dir) {
			var pid int
			if _, err := fmt.Sscanf(name, "/proc/%d/cmdline", &pid); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no agent")
	return 0
}

// inTerminal runs the agent in an interactive shell with job control.
func inTerminal(suffix, keys string) stopping {
	return stopping{func(t *testing.T, w *meshtest.World) func(int) error {
		config, token := w.AgentConfig()
		shell := w.Terminal("terminal", token)
		if err := shell.Type(fmt.Sprintf("%s agent --config %s%s\n", parts.Signet(t), config, suffix)); err != nil {
			t.Fatal(err)
		}
		return func(int) error { return shell.Type(keys) }
	}}
}

// asProcess runs the agent below a shell without job control, and in its group.
func asProcess(stop func(agent int) error) stopping {
	return stopping{func(t *testing.T, w *meshtest.World) func(int) error {
		config, token := w.AgentConfig()
		w.Run("agent-group", "sh", "-c", token+` "$0" "$@"; true`, parts.Signet(t), "agent", "--config", config)
		return stop
	}}
}

// The requests last longer than drain_time, which is one second here.
func TestAStoppedAgentAnswersWhatIsInFlight(t *testing.T) {
	app := arrivals{arrived: make(chan struct{}, 16), by: 1300 * time.Millisecond, next: meshtest.Echo("orders")}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, NoAgent: true, Apps: map[string]meshtest.App{"orders": app},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders")),
	})
	for name, s := range map[string]stopping{
		"Ctrl-C in a job-control shell": inTerminal("", "\x03"),
		"kill %job":                     inTerminal(" &", "kill %1\n"),
		"SIGTERM to the group": asProcess(func(agent int) error {
			group, err := unix.Getpgid(agent)
			if err != nil {
				return err
			}
			return unix.Kill(-group, unix.SIGTERM)
		}),
		// systemd with KillMode=mixed: SIGTERM to the main process alone, and SIGKILL
		// to what is left when it has ended, which must be nothing.
		"its unit": asProcess(func(agent int) error { return syscall.Kill(agent, syscall.SIGTERM) }),
	} {
		t.Run(name, func(t *testing.T) { s.run(t, w, app) })
	}
}
