package attestation_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/test/parts"
)

const nobody, somebody = 65534, 65533

// stage is a directory that every user can enter, a listening socket in it and
// a copy of the test binary as the program to attest.
type stage struct {
	dir, program, socket string
	listener             *net.UnixListener
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "signet-attestation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := &stage{dir: dir, program: filepath.Join(dir, "web"), socket: filepath.Join(dir, "s.sock")}
	copyProgram(t, s.program)
	s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.listener.Close() })
	if err := os.Chmod(s.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	return s
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, self, 0o755); err != nil {
		t.Fatal(err)
	}
}

func fileSHA256(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// actor is a process that plays a role.
type actor struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (s *stage) start(t *testing.T, attr *syscall.SysProcAttr, program, role string, args ...string) *actor {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = []string{roleVariable + "=" + role, "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &actor{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(a.exit)
	return a
}

// connect starts a process that connects, and returns both ends.
func (s *stage) connect(t *testing.T, attr *syscall.SysProcAttr) (*actor, *net.UnixConn) {
	t.Helper()
	a := s.start(t, attr, s.program, "connect", s.socket)
	a.says("connected")
	return a, s.accept(t)
}

func (s *stage) accept(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := s.listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (a *actor) says(want string) {
	a.t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil || line != want+"\n" {
		a.t.Fatalf("the process said %q (%v), want %q", line, err, want)
	}
}

func (a *actor) order(line, answer string) {
	a.t.Helper()
	if _, err := io.WriteString(a.in, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
	a.says(answer)
}

// exit ends the process and reaps it.
func (a *actor) exit() {
	if a.cmd.ProcessState == nil {
		_ = a.in.Close()
		_ = a.cmd.Wait()
	}
}

func as(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: os.Getuid() != 0}}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		parts.Missing(t, "root: this test starts processes of other users")
	}
}

// eachMode runs a test with the kernel's pidfd and with the fallback.
func eachMode(t *testing.T, test func(t *testing.T, a *attestation.Attestor)) {
	t.Run("pidfd", func(t *testing.T) { test(t, new(attestation.Attestor)) })
	t.Run("legacy", func(t *testing.T) { test(t, attestation.ForceLegacy(new(attestation.Attestor))) })
}

func peerOf(t *testing.T, a *attestation.Attestor, c *net.UnixConn) *attestation.Peer {
	t.Helper()
	p, err := a.Peer(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func selectors(t *testing.T, p *attestation.Peer) identity.Selectors {
	t.Helper()
	s, err := p.Selectors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Where the tests run in a service, so do their children.
	return slices.DeleteFunc(s, func(sel identity.Selector) bool { return sel.Type == "systemd" })
}

func (s *stage) wanted(t *testing.T, uid int) []string {
	t.Helper()
	n := strconv.Itoa(uid)
	return []string{"unix:uid:" + n, "unix:gid:" + n, "unix:path:" + s.program, "unix:sha256:" + fileSHA256(t, s.program)}
}

func has(s identity.Selectors, text string) bool { return slices.Contains(s.Strings(), text) }

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func waitZombie(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the process is a zombie", func() bool {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err == nil && strings.Contains(string(raw), ") Z ")
	})
}

// eventually waits with a generous ceiling for what another process does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// takePID starts processes until one has the pid of another that is gone.
func (s *stage) takePID(t *testing.T, pid int, attr *syscall.SysProcAttr) {
	t.Helper()
	const lastPID = "/proc/sys/kernel/ns_last_pid"
	for range 200 {
		if err := os.WriteFile(lastPID, []byte(strconv.Itoa(pid-1)), 0); err != nil {
			parts.Missing(t, lastPID+": "+err.Error())
		}
		a := s.start(t, attr, s.program, "idle")
		a.says("idle")
		if a.cmd.Process.Pid == pid {
			return
		}
		a.exit()
	}
	parts.Missing(t, "pid "+strconv.Itoa(pid)+": could not be taken again on this busy machine")
}
