package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/parts"
)

// step is one sh block of the tutorial, with the text block that follows it.
type step struct{ script, output string }

func tutorial(page string) []step {
	var steps []step
	for _, m := range regexp.MustCompile("(?s)```(sh|text)\n(.*?)```").FindAllStringSubmatch(page, -1) {
		if m[1] == "sh" {
			steps = append(steps, step{script: m[2]})
		} else if n := len(steps); n > 0 {
			steps[n-1].output = m[2]
		}
	}
	return steps
}

// TestTheTutorialsCommandsDoWhatItSays runs every block in one shell. Each line
// of a block's output must be there, where … stands for anything.
func TestTheTutorialsCommandsDoWhatItSays(t *testing.T) {
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	for _, tool := range []string{"bash", "git", "curl", "openssl", "python3"} {
		parts.Program(t, tool)
	}
	steps, script := ownAddresses(t, "TUTORIAL.md", "127.0.71.")
	checkPrinted(t, steps, runScript(t, script, filepath.Dir(signet), filepath.Dir(envoy)))
}

// ownAddresses are a page's steps, and all of them as one script, with other addresses than those that
// begin as in the page: another run of it on this machine has addresses of its own.
func ownAddresses(t *testing.T, name, addresses string) ([]step, string) {
	t.Helper()
	page := read(t, "docs", name)
	if !strings.Contains(page, addresses) {
		t.Fatalf("%s has no address %s…", name, addresses)
	}
	steps := tutorial(strings.ReplaceAll(page, addresses, fmt.Sprintf("127.%d.%d.", 64+os.Getpid()%64, os.Getpid()/64%256)))
	var script strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&script, "\necho '@@@ %d'\n%s", i, s.script)
	}
	return steps, script.String()
}

// checkPrinted wants what each step of a page says that it prints, in what was printed after
// the step's mark.
func checkPrinted(t *testing.T, steps []step, out string) {
	t.Helper()
	printed := strings.Split(out, "@@@ ")
	for i, s := range steps {
		if i+1 >= len(printed) {
			t.Fatalf("the page ended before its step %d:\n%s\n%s", i, s.script, out)
		}
		for line := range strings.Lines(s.output) {
			if !shows(printed[i+1], line) {
				t.Errorf("step %d does not print %q but\n%s\nafter\n%s", i, strings.TrimSpace(line), printed[i+1], s.script)
			}
		}
	}
}

// shows reports whether a line of output is as the page has it; the widths of
// columns do not count.
func shows(out, want string) bool {
	var re []string
	for part := range strings.SplitSeq(strings.Join(strings.Fields(want), " "), "…") {
		re = append(re, regexp.QuoteMeta(part))
	}
	line := regexp.MustCompile("^" + strings.Join(re, ".*") + "$")
	for got := range strings.Lines(out) {
		if line.MatchString(strings.Join(strings.Fields(got), " ")) {
			return true
		}
	}
	return false
}

// runScript runs bash in a folder of its own, with errors ending it, and ends
// whatever it leaves behind.
func runScript(t *testing.T, script string, path ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signet-doc") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover in the temporary folder fails nobody
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // read by name below
	c := exec.Command("bash", "-euo", "pipefail", "-c", "set -m\n"+script)
	c.Dir, c.Stdout, c.Stderr = dir, out, out
	c.Env = append(os.Environ(), "NO_COLOR=1", "PATH="+strings.Join(append(path, os.Getenv("PATH")), string(os.PathListSeparator)))
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err = <-done:
	case <-time.After(6 * time.Minute):
		err = fmt.Errorf("not done after 6 minutes")
	}
	endSession(c.Process.Pid)
	text, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err != nil {
		t.Errorf("the page: %v\n%s", err, text)
	}
	return string(text)
}

// endSession kills every process of a session: a script that failed leaves its
// server and its agent running, each in a process group of its own.
func endSession(sid int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, name := range stats {
		content, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		var pid, ppid, pgrp, session int
		_, rest, _ := strings.Cut(string(content), ") ")
		var state string
		if _, err := fmt.Sscan(rest, &state, &ppid, &pgrp, &session); err != nil || session != sid {
			continue
		}
		if _, err := fmt.Sscan(string(content), &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}
