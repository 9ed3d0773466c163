package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/attestation/x509pop"
	"signet.example/test/parts"
)

// TestTheAuthorityThatThePageMakesLetsItsHostsIn runs the lines of OpenSSL in docs/AGENT.md
// and reads what they made as server and agent do.
func TestTheAuthorityThatThePageMakesLetsItsHostsIn(t *testing.T) {
	parts.Program(t, "openssl")
	lines := strings.Join(regexp.MustCompile(`(?m)^openssl req (?:.*\\\n)*.*$`).FindAllString(read(t, "docs", "AGENT.md"), -1), "\n")
	dir := t.TempDir()
	c := exec.Command("sh", "-ec", "umask 022\n"+lines)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, lines)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if _, err := (x509pop.Config{Roots: in("hosts-ca.pem")}).Open(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(in("host.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (x509pop.Host{Certificate: in("host.pem"), Key: in("host.key")}).Try(); err != nil {
		t.Error(err)
	}
}
