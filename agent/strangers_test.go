package agent_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
)

// connectAgain connects to a socket again and again, and waits to be refused.
func connectAgain(socket string) {
	for {
		c, err := net.Dial("unix", socket) //nolint:gosec // a test's own socket
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, c) // until it is closed
		_ = c.Close()
	}
}

// Twelve programs of a gigabyte each that no binding names connect again and again:
// they are refused without being read, and decisions go on, also after a restart.
func TestProgramsOfStrangersDoNotKeepDecisionsWaiting(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range 12 {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, program, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 1<<30-int64(i)); err != nil { // sparse
			t.Fatal(err)
		}
		cmd := exec.Command(name, "connect", filepath.Join(r.dir, "authz.sock"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()         // it was killed
		})
	}
	time.Sleep(200 * time.Millisecond) // they are at it
	if err := syscall.Kill(authzPID(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	again := authv3.NewAuthorizationClient(r.dial("authz.sock"))
	r.await("decisions", func() bool {
		c, _, err := r.check(again, "GET", allow.GetId())
		return err == nil && c == codes.OK
	})
	took := time.Since(begun)
	t.Logf("decided again after %s", took)
	if took > 10*time.Second {
		t.Errorf("no decision for %s", took)
	}
	_ = client
}
