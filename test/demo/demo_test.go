// Package demo holds `signet dev` to its promises: the calls answer as
// expected, two demos run side by side, and nothing is left behind.
package demo

import (
	"bytes"
	"context"
	"errors"
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

// demo is one run of the command, with a temporary folder of its own.
type demo struct {
	cmd *exec.Cmd
	tmp string

	mu  sync.Mutex
	out bytes.Buffer
}

func (d *demo) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(p)
}

func (d *demo) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

func start(t *testing.T, args ...string) *demo {
	t.Helper()
	return startAs(t, os.Geteuid(), args...)
}

// startAs starts a demo as a user, who may not be able to read where the programs are.
func startAs(t *testing.T, uid int, args ...string) *demo {
	t.Helper()
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	tmp, err := os.MkdirTemp("", "sd") // short: Unix sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	if uid != os.Geteuid() {
		signet, envoy = place(t, signet), place(t, envoy)
		if err := os.Chown(tmp, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	d := &demo{tmp: tmp, cmd: exec.CommandContext(ctx, signet, append([]string{"dev", "--envoy", envoy}, args...)...)}
	if uid != os.Geteuid() {
		id := uint32(uid) //nolint:gosec // a constant of this file
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		d.cmd.Dir = tmp
	}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "NO_COLOR=1")
	d.cmd.Stdout, d.cmd.Stderr = d, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// place copies a program to where every user can run it.
func place(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	content, err := os.ReadFile(program)
	placed := filepath.Join(dir, filepath.Base(program))
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(placed, content, 0o755)); err != nil {
		t.Fatal(err)
	}
	return placed
}

// logs of the demo's own processes, their ends.
func (d *demo) logs() string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(d.tmp, "*", "*.log")) // fails only for a bad pattern
	for _, f := range files {
		content, _ := os.ReadFile(f) // for a failed test's message only
		out.WriteString(f + ":\n" + string(content[max(0, len(content)-3000):]) + "\n")
	}
	return out.String()
}

// leftovers are files in the demo's temporary folder and processes that name it.
func (d *demo) leftovers(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(d.tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(d.tmp)) {
			out = append(out, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}

func TestTwoDemosSideBySideAnswerAsExpectedAndLeaveNothing(t *testing.T) {
	// Where we are root, the second one is a user's who is nobody else here.
	other := os.Geteuid()
	if other == 0 {
		other = 48811 // none of those that systemd gives out (61184 to 65519)
	}
	demos := []*demo{start(t, "--once"), startAs(t, other, "--once", "--svid-lifetime", "10s")}
	for i, d := range demos {
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("demo %d: %v\n%s\n%s", i, err, d.output(), d.logs())
		}
		for _, want := range []string{"orders-v2", "spiffe://demo.example/demo/web", "nobody reaches the admin pages", "mesh.rego:18", "401 denied: policy", "0 of 1 handshakes ended well", " answered, 0 failed", " post-quantum, 0 classical"} {
			if !strings.Contains(d.output(), want) {
				t.Errorf("demo %d does not say %q:\n%s", i, want, d.output())
			}
		}
		if strings.Contains(d.output(), "DIFFERS") {
			t.Errorf("demo %d:\n%s", i, d.output())
		}
		if left := d.leftovers(t); len(left) > 0 {
			t.Errorf("demo %d left behind: %q", i, left)
		}
	}
}

func TestInterruptStopsEverything(t *testing.T) {
	d := start(t)
	for deadline := time.Now().Add(90 * time.Second); !strings.Contains(d.output(), "Ctrl-C"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the demo never came up:\n%s\n%s", d.output(), d.logs())
		}
	}
	if len(d.leftovers(t)) < 5 {
		t.Fatal("a running demo has fewer than five files and processes, so finding none later shows nothing")
	}
	usersOf(t, d)
	exitCodesOfCalls(t, d)
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, d.output())
	}
	if left := d.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// exitCodesOfCalls makes a call that is served and one that is denied.
func exitCodesOfCalls(t *testing.T, d *demo) {
	t.Helper()
	for node, want := range map[string]int{"web": 0, "batch": 5} {
		call := exec.CommandContext(t.Context(), parts.Signet(t), "dev", "call", node, "/orders")
		call.Env = append(os.Environ(), "TMPDIR="+d.tmp, "NO_COLOR=1")
		out, _ := call.CombinedOutput() // its exit code is looked at
		if got := call.ProcessState.ExitCode(); got != want {
			t.Errorf("signet dev call %s /orders: exit code %d, want %d:\n%s", node, got, want, out)
		}
	}
}

// A user of systemd's dynamic range may be anybody's next, so the agent refuses it
// outside a service. Where the demo is seen to be in one, it works.
func TestADemoWhoseUserMayNotCallOutSaysSoAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root, to run the demo as another user")
	}
	d := startAs(t, 61200, "--once")
	began := time.Now()
	err := d.cmd.Wait()
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %s", took)
	}
	if err == nil {
		t.Log("the tests are in a service or container that the agent sees")
		return
	}
	for _, want := range []string{"61184 to 65519", "run it as another one"} {
		if !strings.Contains(d.output(), want) {
			t.Errorf("it does not say %q:\n%s", want, d.output())
		}
	}
}

// usersOf holds a demo of root to what its Envoys and its authz process run as.
func usersOf(t *testing.T, d *demo) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // then everything runs as one user
	}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]int{} // program or command, then uid
	for _, link := range exes {
		exe, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(exe, d.tmp) {
			continue
		}
		what := filepath.Base(exe)
		if line, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline")); err == nil && what == "signet" {
			what = strings.Split(string(line)+"\x00\x00", "\x00")[1]
		}
		status, err := os.ReadFile(filepath.Dir(link) + "/status")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "\nUid:\t")
		uid, _, _ := strings.Cut(rest, "\t")
		if seen[what] == nil {
			seen[what] = map[string]int{}
		}
		seen[what][uid]++
	}
	taken := map[string]string{"0": "root"}
	for what, of := range map[string]int{"envoy": 4, "authz": 1} {
		if len(seen[what]) != 1 {
			t.Errorf("%s runs as %v, want one user", what, seen[what])
		}
		for uid, n := range seen[what] {
			if other := taken[uid]; other != "" || n != of {
				t.Errorf("%d of %s run as uid %s, which is also %q", n, what, uid, other)
			}
			taken[uid] = what
		}
	}
}

func TestATemporaryFolderThatIsClosedToOthersIsRefusedByName(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root, whose demo runs proxies as other users")
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), parts.Signet(t), "dev", "--once", "--envoy", parts.Envoy(t))
	cmd.Env = append(os.Environ(), "TMPDIR="+closed, "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if want := "cannot enter " + closed + ": set TMPDIR"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("got %v, want %q:\n%s", err, want, out)
	}
}
