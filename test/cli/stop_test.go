package cli

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet.example/test/parts"
)

// anAgent is what a task's agent is to who tells it to stop.
type anAgent struct {
	mu          sync.Mutex
	asked       []string // methods; guarded by mu
	stays       bool     // its callers do
	application string   // for how long the application goes on, as it was told; guarded by mu
}

// ServeHTTP implements http.Handler. Its callers are gone when it is asked for the third time.
func (a *anAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method)
	switch {
	case r.Method == http.MethodPost:
		a.application = r.URL.Query().Get("application")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "33s\n")
	case a.stays || len(a.asked) < 4:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (a *anAgent) was() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.asked, " ")
}

// at serves it in a folder of sockets.
func (a *anAgent) at(t *testing.T, dir string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "stop.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = s.Close(); <-done })
}

// A9-51: the container that is stopped before the application was tried by nobody with its flag.
func TestWhoWaitsForItsEndTellsTheAgentThenAndNotBefore(t *testing.T) {
	signet := parts.Signet(t)
	for name, c := range map[string]struct {
		agent *anAgent // nil where there is none
		asked string   // "" where that differs
		code  int
		said  string
	}{
		"callers go elsewhere": {&anAgent{}, "POST GET GET GET", 0, "callers have gone elsewhere"},
		"callers stay":         {&anAgent{stays: true}, "", 1, "callers have not gone elsewhere in time; the agent goes on to stop"},
		"no agent":             {nil, "", 4, "hint: --socket-dir names the folder of the sockets of the task"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "st") // a socket's path has 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in /tmp
			if c.agent != nil {
				c.agent.at(t, dir)
			}
			cmd := exec.CommandContext(t.Context(), signet, "agent", "stop", "--on-term", "--socket-dir", dir, "--wait", "2s")
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = read.Close() }() // only read
			cmd.Stdout, cmd.Stderr = write, write
			if err := errors.Join(cmd.Start(), write.Close()); err != nil {
				t.Fatal(err)
			}
			out := bufio.NewReader(read)
			if line, err := out.ReadString('\n'); err != nil || line != "waiting for SIGTERM\n" {
				t.Errorf("%q, %v", line, err)
			}
			if c.agent != nil && c.agent.was() != "" {
				t.Errorf("before SIGTERM it asked %s", c.agent.was())
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(out)
			if err != nil {
				t.Error(err)
			}
			_ = cmd.Wait() // its exit code says it
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(said), c.said) {
				t.Errorf("exit code %d, it said %q", code, said)
			}
			if c.asked != "" && c.agent.was() != c.asked {
				t.Errorf("it asked %s, want %s", c.agent.was(), c.asked)
			}
		})
	}
}

// By hand the proxy was ended after 173 s, and nothing said so.
func TestWhoStopsATaskByHandSaysForHowLongItsApplicationGoesOn(t *testing.T) {
	signet := parts.Signet(t)
	for name, c := range map[string]struct {
		args []string
		told string
		code int
		said string
	}{
		"as long as it can on ECS": {nil, "2m30s", 0, "callers have gone elsewhere; the proxy goes on while the application does, for 33s at most since it was told (--application)"},
		"for 10 s":                 {[]string{"--application", "10s"}, "10s", 0, "for 33s at most"},
		"for an hour":              {[]string{"--application", "1h"}, "", 2, "--application 1h0m0s: want 0 to 2m30s"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "st") // a socket's path has 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in /tmp
			a := &anAgent{}
			a.at(t, dir)
			cmd := exec.CommandContext(t.Context(), signet, append([]string{"agent", "stop", "--socket-dir", dir, "--wait", "10s"}, c.args...)...)
			said, _ := cmd.CombinedOutput() // its exit code says it
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(said), c.said) {
				t.Errorf("exit code %d, it said %q", code, said)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.application != c.told {
				t.Errorf("the agent was told %q, want %q", a.application, c.told)
			}
		})
	}
}
