package agent_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"signet.example/agent"
	"signet.example/agent/files"
	"signet.example/api"
	"signet.example/test/parts"
)

// credentialFolders is a folder on a tmpfs.
func credentialFolders(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sa")
	if err != nil {
		parts.Missing(t, "a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // best effort
	return dir
}

func withFiles(entry, folder string) *api.Entry {
	return &api.Entry{
		Name: entry, SpiffeId: "spiffe://test.example/" + entry, Selectors: []string{"unix:uid:" + strconv.Itoa(os.Geteuid())},
		Files: &api.EntryFiles{Folder: folder},
	}
}

// TestAnAgentKeepsWhatItsServerSaysInFilesAndTakesItAway: folder, report and end by a whole
// agent; package files has the details.
func TestAnAgentKeepsWhatItsServerSaysInFilesAndTakesItAway(t *testing.T) {
	dir := credentialFolders(t)
	r := newRig(t, func(f *fakeServer) { f.entries = append(f.entries, withFiles("db", "postgres")) }, func(c *agent.Config) {
		c.Files = files.Config{Dir: dir, Users: []string{strconv.Itoa(os.Geteuid()) + ":" + strconv.Itoa(os.Getegid())}}
	})
	path := filepath.Join(dir, "postgres", "credential-bundle.private-key.pem")
	r.await("the credentials", func() bool {
		content, err := os.ReadFile(path)
		return err == nil && bytes.Count(content, []byte("BEGIN ")) == 2
	})
	r.await("the report", func() bool {
		report := r.lastReport()
		for _, s := range report.GetSvids() {
			if s.GetConsumerWord() == "workload:files/postgres" {
				return true
			}
		}
		return false
	})
	r.change(func(f *fakeServer) {
		other := withFiles("web", "nginx")
		other.Selectors = []string{"unix:uid:4242"}
		f.entries = []*api.Entry{other}
	})
	r.await("the end of the folder", func() bool { _, err := os.Lstat(filepath.Dir(path)); return os.IsNotExist(err) })
	r.await("the finding", func() bool {
		for _, f := range r.lastReport().GetOwn() {
			if f.GetKind() == api.AgentFinding_RESOURCE_NOT_USABLE && strings.Contains(f.GetText(), "uid 4242 is none of files.users") {
				return true
			}
		}
		return false
	})
}

func TestWhereFilesMayBeIsChecked(t *testing.T) {
	base := agent.Config{Server: "mesh:8443"}
	for want, f := range map[string]files.Config{
		"files.dir: is missing":             {Users: []string{"0"}},
		"files.dir: want the absolute path": {Dir: "run/files"},
		"which the agent keeps to itself":   {Dir: "/run/signet/files"},
		"files.commands[0].run":             {Dir: "/run/files", Commands: []files.Command{{Name: "a", Run: []string{"reload"}}}},
		"files.commands[1].name":            {Dir: "/run/files", Commands: []files.Command{{Name: "a", Run: []string{"/a"}}, {Name: "a", Run: []string{"/a"}}}},
		"files.commands[0].timeout":         {Dir: "/run/files", Commands: []files.Command{{Name: "a", Run: []string{"/a"}, Timeout: 1e15}}},
	} {
		c := base
		c.Files = f
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
