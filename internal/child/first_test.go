package child_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/internal/child"
)

// first is what this binary is as the first process of a container, whose program is a script.
// It starts that again up to twice where its exit code is 42.
func first(script string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	tries := 0
	code, err := child.First{
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Grace: 2 * time.Second, Log: slog.New(slog.DiscardHandler),
		Again: func(code int, _ time.Duration) (time.Duration, bool) {
			tries++
			return time.Millisecond, code == 42 && tries < 3
		},
	}.Run(ctx, hangups)
	if err == nil {
		os.Exit(code)
	}
	return err
}

func startFirst(t *testing.T, script string) (cmd *exec.Cmd, said func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // the process has its own
	cmd = exec.CommandContext(t.Context(), self, "first", script)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, func() string {
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestTheFirstProcessEndsAsItsProgramDid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, signal string
		code           int
		said           string
	}{
		"done":                             {"echo a", "", 0, "a\n"},
		"failed":                           {"echo a; exit 7", "", 7, "a\n"},
		"killed":                           {"kill -9 $$", "", 137, ""},
		"crashed, and started again":       {"echo a; exit 42", "", 42, "a\na\na\n"},
		"told to stop":                     {`trap 'echo stopping; exit 5' TERM; echo up; while :; do sleep 0.02; done`, "TERM", 5, "up\nstopping\n"},
		"does not stop, and is killed":     {`trap '' TERM; echo up; while :; do sleep 0.02; done`, "TERM", 137, "up\n"},
		"told to read its files again":     {`trap 'echo again; exit 0' HUP; echo up; while :; do sleep 0.02; done`, "HUP", 0, "up\nagain\n"},
		"what others leave is reaped":      {`(sleep 0.05 & ) ; sleep 0.3; grep -l '^PPid:[^0-9]*'$PPID'$' /proc/[0-9]*/status 2>/dev/null | wc -l`, "", 0, "1\n"},
		"who is left when it ends is none": {`(sleep 0.2; echo left) & exit 3`, "", 3, "left\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, said := startFirst(t, c.script)
			if c.signal != "" {
				for end := time.Now().Add(20 * time.Second); !strings.Contains(said(), "up") && time.Now().Before(end); {
					time.Sleep(5 * time.Millisecond)
				}
				sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[c.signal]
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			err := cmd.Wait()
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != c.code || said() != c.said {
				t.Errorf("exit code %d, want %d; it said %q, want %q", code, c.code, said(), c.said)
			}
		})
	}
}

func TestAProgramThatIsNotThereIsNoCrash(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), self, "first-nothing").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("%v: %s", err, out)
	}
}

// firstNothing is first with a program that is not there.
func firstNothing(said io.Writer) error {
	code, err := child.First{
		Path: "/nowhere/at/all", Args: []string{"all"}, Log: slog.New(slog.DiscardHandler),
		Again: func(int, time.Duration) (time.Duration, bool) { return 0, true },
	}.Run(context.Background(), nil)
	_, _ = fmt.Fprintln(said, code) // for who reads the test's log
	return err
}
