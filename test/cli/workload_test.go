package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"signet.example/agent/local"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// commandLine runs signet for one World.
type commandLine struct {
	t      *testing.T
	w      *meshtest.World
	signet string
	attr   *syscall.SysProcAttr
}

// run returns what a command writes, and its exit code.
func (c commandLine) run(stdin string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.signet, args...)
	cmd.Env = append(os.Environ(), "SIGNET_SOCKET="+c.w.Socket(), "NO_COLOR=1")
	cmd.SysProcAttr = c.attr
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

func (c commandLine) want(code int, stdin string, args ...string) (stdout string) {
	c.t.Helper()
	stdout, stderr, got := c.run(stdin, args...)
	if got != code {
		c.t.Fatalf("signet %s: exit %d, want %d\n%s\n%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

// The whole way of who has a process and no identity for it: asked why, proposed, applied as it is
// printed, had.
func TestWhatIsSuggestedForAProcessGivesItItsIdentity(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{})
	c := commandLine{t: t, w: w, signet: parts.Signet(t)}
	pid, sockets := strconv.Itoa(os.Getpid()), w.AgentDir()
	near := fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: near}\nspec: {group: hosts, spiffeID: \"spiffe://%s/near\", selectors: [\"unix:uid:%d\", \"unix:path:%s\"]}\n", w.TD, os.Geteuid()+1, own(t))
	c.want(0, near, "apply", "-f", "-")

	explain := func(code int) string {
		t.Helper()
		return c.want(code, "", "workload", "explain", pid, "--socket-dir", sockets)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the agent has the entry soon
		out, _, code := c.run("", "workload", "explain", pid, "--socket-dir", sockets)
		if strings.Contains(out, "Entry near") {
			if want := fmt.Sprintf("unix:uid:%d wanted, has unix:uid:%d", os.Geteuid()+1, os.Geteuid()); code != 3 || !strings.Contains(out, want) || !strings.Contains(out, "no Entry and no Binding of this host's NodeGroups fits") {
				t.Errorf("exit %d, want 3 and %q in\n%s", code, want, out)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the agent does not have the entry:\n%s", out)
		}
	}

	id := "spiffe://" + w.TD + "/suggested"
	yaml := c.want(0, "", "workload", "suggest", pid, "--socket-dir", sockets, "--group", "hosts", "--spiffe-id", id)
	t.Logf("suggested:\n%s", yaml)
	c.want(0, yaml, "apply", "-f", "-")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	svid := fetched(ctx, t, "unix://"+filepath.Join(sockets, "workload.sock"))
	if svid != id {
		t.Errorf("the process is %s, want %s", svid, id)
	}
	if out := explain(0); !strings.Contains(out, id+", by Entry ") || !strings.Contains(out, ", until ") {
		t.Errorf("after it was applied:\n%s", out)
	}

	var p local.Process
	if err := json.Unmarshal([]byte(c.want(0, "", "workload", "explain", pid, "--socket-dir", sockets, "-o", "json")), &p); err != nil {
		t.Fatal(err)
	}
	if p.PID != os.Getpid() || len(p.Fitting) != 1 || !p.Fitting[0].Given || p.Nothing != "" || p.TrustDomain != w.TD {
		t.Errorf("as JSON it is %+v", p)
	}
	if out := c.want(0, "", "__complete", "workload", "explain", ""); !strings.Contains(out, pid+"\t") {
		t.Errorf("completion has no %s:\n%s", pid, out)
	}
}

// fetched is what the Workload API gives this process, when it gives it something.
func fetched(ctx context.Context, t *testing.T, address string) string {
	t.Helper()
	for {
		svid, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr(address))
		if err == nil {
			return svid.ID.String()
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func own(t *testing.T) string {
	t.Helper()
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhoMayNotAskAndWhatCannotBeAskedIsSaidWithItsExitCode(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{})
	c := commandLine{t: t, w: w, signet: parts.Signet(t)}
	sockets := w.AgentDir()
	for name, of := range map[string]struct {
		args []string
		code int
		said string
	}{
		"no process":        {[]string{"workload", "explain", "4194303", "--socket-dir", sockets}, 1, "no process has this id"},
		"no number":         {[]string{"workload", "explain", "web", "--socket-dir", sockets}, 2, "is not a process id"},
		"no PID":            {[]string{"workload", "suggest", "--socket-dir", sockets}, 2, "needs a PID"},
		"no agent":          {[]string{"workload", "explain", "1", "--socket-dir", t.TempDir()}, 4, "no agent answers"},
		"two identities":    {[]string{"workload", "suggest", "1", "--spiffe-id", "spiffe://a/b", "--virtual-node", "a/b"}, 2, "it has one identity"},
		"a foreign domain":  {[]string{"workload", "suggest", strconv.Itoa(os.Getpid()), "--socket-dir", sockets, "--spiffe-id", "spiffe://other.example/b"}, 2, "is not this server's"},
		"a reserved one":    {[]string{"workload", "suggest", strconv.Itoa(os.Getpid()), "--socket-dir", sockets, "--spiffe-id", "spiffe://" + w.TD + "/signet/agent/x"}, 2, "reserved"},
		"as a machine asks": {[]string{"workload", "explain", "4194303", "--socket-dir", sockets, "-o", "json"}, 1, `"exitCode":1`},
	} {
		_, said, code := c.run("", of.args...)
		if code != of.code || !strings.Contains(said, of.said) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s", name, code, of.code, of.said, said)
		}
	}
	if os.Geteuid() != 0 {
		parts.Missing(t, "root, for another user")
	}
	// A program that everybody can execute, in a folder that everybody can enter.
	dir, err := os.MkdirTemp("", "wl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile(c.signet)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "signet"), program, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	c.signet, c.attr = filepath.Join(dir, "signet"), &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if _, said, code := c.run("", "workload", "explain", "1", "--socket-dir", sockets); code != 5 || !strings.Contains(said, "for root and the agent's own user") {
		t.Errorf("another user: exit %d, want 5:\n%s", code, said)
	}
}
