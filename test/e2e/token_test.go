package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

func TestATokenJoinsOneAgentOnce(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{NoAgent: true})
	token := w.Token()
	const callers = 50
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		joined  []string
		refused = map[codes.Code]int{}
	)
	begin := make(chan struct{})
	for range callers {
		wg.Go(func() { // each has a host key and a connection of its own
			<-begin
			h, err := w.TryJoinHost(token)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused[status.Code(err)]++
				return
			}
			joined = append(joined, h.ID)
		})
	}
	close(begin)
	wg.Wait()
	t.Logf("%d attestations with one token: %d joined, refused %v", callers, len(joined), refused)
	// Those that come before the one that joins has used the token up share its bucket.
	if n := refused[codes.PermissionDenied] + refused[codes.ResourceExhausted]; len(joined) != 1 || n != callers-1 {
		t.Errorf("%d joined, refused %v; want 1 and %d times PermissionDenied or ResourceExhausted", len(joined), refused, callers-1)
	}
	agents, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(agents.GetAgents()); n != 1 || agents.GetAgents()[0].GetId() != joined[0] {
		t.Errorf("the server knows %d agents: %v, want %v", n, agents.GetAgents(), joined)
	}
	if _, err := w.TryJoinHost(token); status.Code(err) != codes.PermissionDenied {
		t.Errorf("used again, later: %v", err)
	}
	w.Server.Stop()
	w.StartServer()
	if _, err := w.TryJoinHost(token); status.Code(err) != codes.PermissionDenied {
		t.Errorf("used again, after the server restarted: %v", err)
	}
	fields := strings.Split(token, ".")
	fields[1] = "A" + fields[1][1:] // a secret has 256 bits: nobody has this one
	if fields[1] == strings.Split(token, ".")[1] {
		fields[1] = "B" + fields[1][1:]
	}
	if _, err := w.TryJoinHost(strings.Join(fields, ".")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a token that never was: %v", err)
	}
	if content := w.Server.Tail(1 << 20); strings.Contains(content, strings.Split(token, ".")[1]) {
		t.Error("the server's log has the token")
	}
}

func TestAHostThatLostItsDataDirSaysWhatToDoWithoutAToken(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{})
	w.Agent.Stop()
	if err := os.RemoveAll(filepath.Join(w.Dir, "agent-data")); err != nil {
		t.Fatal(err)
	}
	used := w.Token()
	if _, err := w.TryJoinHost(used); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ token, want string }{
		"no token":     {"", "signet token create --group"},
		"a used token": {used, "signet token create --group"},
		"half a token": {used[:20], "join token"},
		"a blank":      {" ", "signet token create --group"},
	} {
		out, code := runAgent(t, w, c.token)
		if code == 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want it to say %q:\n%s", name, code, c.want, out)
		}
		if len(c.token) > 20 && strings.Contains(out, strings.Split(c.token, ".")[1]) {
			t.Errorf("%s: the token is in the output", name)
		}
	}
	w.StartAgent() // with a new one
	eventually(t, 10*time.Second, "the agent with a new token", func() bool {
		agents, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
		if err != nil {
			return false
		}
		connected := 0
		for _, a := range agents.GetAgents() {
			if a.GetConnected() {
				connected++
			}
		}
		return connected == 1
	})
}

// runAgent runs the World's agent in the foreground, for as long as it wants to
// run without a good token.
func runAgent(t *testing.T, w *meshtest.World, token string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, parts.Signet(t), "agent", "--config", filepath.Join(w.Dir, "agent.yaml"))
	cmd.Env = append(os.Environ(), "SIGNET_TOKEN="+token)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("signet agent: %v, %v: %s", err, ctx.Err(), out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
