// Package cli holds the stories of the command line, one testscript file
// each, against a real server.
package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

func TestStories(t *testing.T) {
	signet := parts.Signet(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(signet)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("NO_COLOR", "1")
			w := meshtest.Start(env.T().(testing.TB), meshtest.Options{NoAgent: true, ServerExtra: "  agent: 8s\n"}) // under lifetimes
			addresses, err := w.Addresses(w.ServerDir())
			if err != nil {
				return err
			}
			for _, script := range []string{"await.sh", "with.sh", "fix.sh"} { // txtar has no modes
				if err := os.Chmod(filepath.Join(env.WorkDir, script), 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			env.Setenv("AGENTS", addresses.Agents)
			env.Setenv("SIGNET_SOCKET", w.Socket())
			env.Setenv("SERVER_DIR", w.ServerDir())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
		},
	})
}

// exits N command…: runs the command and checks its exit code; its output is
// there for stdout and stderr.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("%v: exit %s, want %s", args[1:], code, args[0])
	}
}

// TestEveryCommandHasHelpWithTwoExamples is house rule 1.
func TestEveryCommandHasHelpWithTwoExamples(t *testing.T) {
	signet := parts.Signet(t)
	for _, command := range []string{"init", "server", "signer", "agent", "dev", "token create", "apply", "diff", "get", "delete", "import", "import appmesh", "import spire", "export", "ban", "envoy bootstrap", "policy init", "policy sync", "policy check", "policy test", "proxy config", "agent owners", "agent owners list", "agent owners accept", "dev call", "explain", "workload", "workload explain", "workload suggest", "check", "certs"} {
		out, err := exec.CommandContext(t.Context(), signet, append(strings.Fields(command), "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("signet %s --help: %v", command, err)
		}
		_, examples, found := strings.Cut(string(out), "Examples:")
		examples, _, _ = strings.Cut(examples, "Flags:")
		if n := strings.Count(examples, "signet "); !found || n < 2 {
			t.Errorf("signet %s --help has %d examples, want at least 2", command, n)
		}
	}
}
