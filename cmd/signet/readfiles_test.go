package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// A pipe into which nobody writes keeps whoever opens it for ever, and /dev/zero has no end.
func TestAFolderIsReadWithoutWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "pipe.yaml")
	err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.Symlink("/dev/zero", filepath.Join(dir, "zero.yaml")),
		os.WriteFile(filepath.Join(dir, "mesh.yaml"), []byte("kind: Mesh\n"), 0o600), os.Symlink("mesh.yaml", filepath.Join(dir, "link.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	var c cobra.Command
	var said bytes.Buffer
	c.SetErr(&said)
	c.SetContext(t.Context())
	for _, recursive := range []bool{false, true} {
		said.Reset()
		sources, lost, err := readSources(&c, []string{dir}, recursive)
		if err != nil || len(sources) != 2 || len(lost) != 2 || !strings.Contains(said.String(), "no regular file is not read: pipe.yaml, zero.yaml") {
			t.Errorf("recursive %t: %v, %v, said %q", recursive, sources, err, said.String())
		}
	}
	files, skipped, err := importFiles(&c, []string{dir}, false)
	if err != nil || len(files) != 2 || len(skipped) != 2 {
		t.Errorf("import: %v %v %v", files, skipped, err)
	}
	if _, _, err := readSources(&c, []string{"/dev/zero"}, false); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("a device by its name: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c.SetContext(ctx)
	if _, _, err := readSources(&c, []string{fifo}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a pipe by its name, until the caller gives up: %v", err)
	}
}
