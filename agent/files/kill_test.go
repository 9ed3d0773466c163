package files

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"signet.example/identity"
	"signet.example/test/parts"
)

// killedFolder has the test's own program, started again, rotate there until it is killed.
const killedFolder = "SIGNET_TEST_KILLED_FOLDER"

// TestAFolderIsWholeWheneverTheAgentIsKilled kills a process that rotates, at any instant,
// and looks at what it leaves.
func TestAFolderIsWholeWheneverTheAgentIsKilled(t *testing.T) {
	if dir := os.Getenv(killedFolder); dir != "" {
		rotate(t, dir)
		return
	}
	kills := 20
	if parts.Soak() {
		kills = 500
	}
	dir := memory(t)
	found := 0
	for range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$") //nolint:gosec // this program itself
		cmd.Env = append(os.Environ(), killedFolder+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(out); in.Scan() && !strings.Contains(in.Text(), "rotating"); {
		}
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		content, err := os.ReadFile(dir + "/postgres/" + bundleName)
		if os.IsNotExist(err) {
			continue // it was taken away, or had not been made yet
		}
		if err != nil {
			t.Fatal(err)
		}
		found++
		list, err := blocks(content)
		if err != nil || len(list) != 3 || pairs(content, content) != nil {
			t.Fatalf("%d blocks, %v", len(list), err)
		}
		if err := readSet(dir + "/postgres/" + pemName); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d folders", kills, found)
	if found == 0 {
		t.Error("nothing was ever there")
	}
	// The next start takes away what was half made, and all that nobody asks for.
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if got := names(t, dir+"/"+stageName); got != "" {
		t.Errorf("in the stage are %s", got)
	}
	if err := root.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != stageName {
		t.Errorf("left are %s", got)
	}
}

// rotate writes a folder anew for ever, and takes it away now and then.
func rotate(t *testing.T, dir string) {
	r := newRig(t)
	e := entry("db", "postgres", self, 1)
	e.Files.Layouts = []string{identity.LayoutPEM}
	r.told(e)
	r.dir = dir
	r.open()
	for n := 0; ; n++ {
		r.told(e)
		r.issue("db")
		r.once()
		if n == 0 {
			if _, err := os.Stdout.WriteString("rotating\n"); err != nil {
				t.Fatal(err)
			}
		}
		if n%5 == 4 {
			r.told()
			r.once()
		}
	}
}
