package meshtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

// victim is set in the process that is killed.
const victim = "SIGNET_TEST_VICTIM"

func TestNothingOfAWorldOutlivesATestThatIsKilled(t *testing.T) {
	if os.Getenv(victim) != "" {
		w := meshtest.Start(t, meshtest.Options{Nodes: []string{"front"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", ""))})
		fmt.Println("world", w.Dir)
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v") //nolint:gosec // this very test
	cmd.Env = append(os.Environ(), victim+"=1")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it is killed
	dir := ""
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if strings.Contains(lines.Text(), "--- SKIP") {
			t.Skip("the world that is to be killed was skipped")
		}
		dir, _ = strings.CutPrefix(lines.Text(), "world ")
		if !filepath.IsAbs(dir) {
			dir = ""
		}
	}
	all := descendants(cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()     // nobody else will
	if want := 5; len(all) < want || dir == "" { // server, signer, agent, authz, Envoy
		t.Fatalf("the world has %d processes, want %d", len(all), want)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := running(all)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("these are left: %v", left)
		}
	}
}

// descendants of a process, with what they run.
func descendants(pid int) map[int]string {
	all := map[int]string{}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a good pattern
	for _, list := range lists {
		text, _ := os.ReadFile(list) // of a thread that is gone: none
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			all[child] = command(child)
			maps.Copy(all, descendants(child))
		}
	}
	return all
}

func command(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // of one that is gone, or a zombie: none
	return string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
}

// running are those that still run what they ran.
func running(all map[int]string) []string {
	var left []string
	for pid, what := range all {
		if now := command(pid); now != "" && now == what {
			left = append(left, fmt.Sprintf("%d %s", pid, what))
		}
	}
	return left
}
