package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// TestTheCommandsOfTheSignersPageAreGood runs what the two units start with
// --check, the server with the file that the page gives it.
func TestTheCommandsOfTheSignersPageAreGood(t *testing.T) {
	signet, page := parts.Signet(t), read(t, "docs", "SIGNER.md")
	config := filepath.Join(t.TempDir(), "server.yaml")
	files := block(page, "yaml")
	if len(files) != 1 {
		t.Fatalf("%d configurations", len(files))
	}
	if err := os.WriteFile(config, []byte(files[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	units := block(page, "ini")
	if len(units) != 2 {
		t.Fatalf("%d units", len(units))
	}
	for _, unit := range units {
		start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/signet (.*)$`).FindStringSubmatch(unit)
		if start == nil {
			t.Fatalf("nothing is started by\n%s", unit)
		}
		args := append(strings.Fields(strings.ReplaceAll(start[1], "/etc/signet/server.yaml", config)), "--check")
		if out, err := exec.CommandContext(t.Context(), signet, args...).CombinedOutput(); err != nil {
			t.Errorf("signet %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}
