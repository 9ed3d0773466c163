package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

// Nobody reads what the command writes: it is at a step that knows of no interruption, as it is while it
// works through a large mesh.
func TestACommandThatIsInterruptedEnds(t *testing.T) {
	signet := parts.Signet(t)
	var mesh strings.Builder
	mesh.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n")
	for n := range 1000 { // more than a pipe holds
		fmt.Fprintf(&mesh, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n%d}\nspec: {meshRef: {name: shop}, serviceDiscovery: {dns: {hostname: n%d.example}}, listeners: [{portMapping: {port: 8080, protocol: http}}]}\n", n, n)
	}
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(file, []byte(mesh.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		c := exec.CommandContext(t.Context(), signet, "import", "appmesh", file, "--dry-run", "-o", "wide")
		c.Stdout, c.Stderr = write, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		_ = write.Close()               // ours
		stuck := func() (bool, error) { // it has begun to write, and cannot end
			n, err := unix.IoctlGetInt(int(read.Fd()), unix.TIOCINQ)
			return n > 0, err
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			written, err := stuck()
			if err != nil || time.Since(began) > time.Minute {
				t.Fatalf("nothing is written: %v", err)
			}
			if written {
				break
			}
		}
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Minute, func() { _ = c.Process.Kill() }) // the test says so
		err = c.Wait()
		_ = read.Close() // nobody writes any more
		var exit *exec.ExitError
		if !kill.Stop() || !errors.As(err, &exit) || exit.ExitCode() != 1 || said.String() != "signet: interrupted\n" {
			t.Errorf("%s: %v, it says %.200q", s, err, said.String())
		}
	}
}
