package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/test/parts"
)

// script is a program that a command can be.
func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(memory(t), "reload")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func withCommand(e *api.Entry, name string) *api.Entry {
	e.Files.Command = name
	return e
}

func lines(path string) int {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return strings.Count(string(content), "\n")
}

func TestACommandFollowsEachChange(t *testing.T) {
	out := filepath.Join(memory(t), "out")
	run := script(t, `test -s "$SPIFFE_CREDENTIAL_FOLDER/credential-bundle.private-key.pem" && echo "$SIGNET_SPIFFE_ID $1 $(env | wc -l)" >> `+out+"\n")
	r := newRig(t, func(p *Parts) {
		p.Commands = []Command{{Name: "reload", Run: []string{run, "now"}}}
	})
	r.told(withCommand(entry("db", "postgres", self, 1), "reload"))
	r.issue("db")
	r.begin()
	r.await("the first", func() bool { return lines(out) == 1 })
	r.issue("db")
	r.await("the second", func() bool { return lines(out) == 2 })
	content, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(content), "spiffe://test.example/db now ") {
		t.Errorf("%q, %v", content, err)
	}
	if p := r.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

func TestACommandThatFailsOrHangsIsToldAndTriedAgain(t *testing.T) {
	out := filepath.Join(memory(t), "out")
	for name, tc := range map[string]struct{ script, problem string }{
		"fails": {"echo x >> " + out + "\necho no such service >&2\nexit 3\n", "exit status 3: no such service"},
		"hangs": {"echo x >> " + out + "\nexec sleep 1000\n", "killed after its timeout"},
	} {
		_ = os.Remove(out)
		run := script(t, tc.script)
		r := newRig(t, func(p *Parts) {
			p.Commands = []Command{{Name: "reload", Run: []string{run}, Timeout: 300 * time.Millisecond}}
		})
		r.told(withCommand(entry("db", "postgres", self, 1), "reload"))
		r.issue("db")
		r.begin()
		r.await(name+": the problem", func() bool { p := r.Problems(); return len(p) == 1 && strings.Contains(p[0], tc.problem) })
		r.await(name+": another try", func() bool { return lines(out) > 1 })
		if _, err := read(r.path("postgres", bundleName), trustOf(r.root).Pool); err != nil {
			t.Error(err)
		}
		begun := time.Now()
		r.end()
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: the end took %s", name, took)
		}
	}
}

// TestNoTwoCommandsRunForOneFolder: changes that come while one runs are told of once.
func TestNoTwoCommandsRunForOneFolder(t *testing.T) {
	dir := memory(t)
	run := script(t, "mkdir "+dir+"/busy || echo two >> "+dir+"/two\nsleep 0.2\nrmdir "+dir+"/busy\necho x >> "+dir+"/out\n")
	r := newRig(t, func(p *Parts) { p.Commands = []Command{{Name: "reload", Run: []string{run}}} })
	r.told(withCommand(entry("db", "postgres", self, 1), "reload"))
	r.begin()
	last := r.issue("db")
	for range 20 {
		last = r.issue("db")
		time.Sleep(10 * time.Millisecond)
	}
	r.await("the last", func() bool {
		leaf, err := read(r.path("postgres", bundleName), trustOf(r.root).Pool)
		return err == nil && leaf.Equal(last.Leaf) && lines(dir+"/out") >= 2
	})
	time.Sleep(500 * time.Millisecond)
	if two, n := lines(dir+"/two"), lines(dir+"/out"); two > 0 || n > 4 {
		t.Errorf("%d ran beside another, %d in all", two, n)
	}
}

func TestACommandIsTheOwnersWithoutPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root")
	}
	dir := memory(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	run := script(t, "(id -u; id -g; id -G; grep -E 'CapEff|CapPrm|CapAmb|NoNewPrivs' /proc/self/status | tr -d '\\n\\t') > "+dir+"/out.new\nmv "+dir+"/out.new "+dir+"/out\n")
	r := newRig(t, func(p *Parts) {
		p.Owners = []child.User{{UID: 1, GID: 1}}
		p.Commands = []Command{{Name: "reload", Run: []string{run}}}
	})
	r.told(withCommand(entry("db", "postgres", "1", 1), "reload"))
	r.issue("db")
	r.begin()
	r.await("the command", func() bool { return lines(dir+"/out") > 2 })
	content, err := os.ReadFile(dir + "/out")
	none := "0000000000000000"
	if err != nil || string(content) != "1\n1\n1\nCapPrm:"+none+"CapEff:"+none+"CapAmb:"+none+"NoNewPrivs:1" {
		t.Errorf("%q, %v", content, err)
	}
	r.end()
	// What others could change does not run as the owner.
	if err := os.Chmod(run, 0o777); err != nil {
		t.Fatal(err)
	}
	r.open(func(p *Parts) {
		p.Owners = []child.User{{UID: 1, GID: 1}}
		p.Commands = []Command{{Name: "reload", Run: []string{run}}}
	})
	r.begin()
	r.await("the refusal", func() bool { p := r.Problems(); return len(p) == 1 && strings.Contains(p[0], "lets others in") })
}

// TestACommandIsTheHostsToName: an entry names one and writes none.
func TestACommandIsTheHostsToName(t *testing.T) {
	r := newRig(t)
	r.told(withCommand(entry("db", "postgres", self, 1), "reload"))
	r.issue("db")
	r.begin()
	r.await("the problem", func() bool { p := r.Problems(); return len(p) == 1 && strings.Contains(p[0], `has no "reload"`) })
}
