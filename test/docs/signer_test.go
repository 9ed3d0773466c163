package docs

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// TestTheCommandsOfTheSignersPageAreGood runs what the two units start with
// --check, on folders that `signet init` has made, the server with the file that the
// page gives it: nothing is wrong but that the signer does not run.
func TestTheCommandsOfTheSignersPageAreGood(t *testing.T) {
	signet, page := parts.Signet(t), read(t, "docs", "SIGNER.md")
	dir := t.TempDir()
	here := strings.NewReplacer(
		"/etc/signet/server.yaml", filepath.Join(dir, "server.yaml"),
		"/var/lib/signet-signer", filepath.Join(dir, "signer"), "/var/lib/signet", filepath.Join(dir, "server"),
		"/run/signet-signer", dir, "--server-user signet", "--server-user 4000000", "signer_user: signet-signer", `signer_user: "4000001"`,
		"listen: 0.0.0.0:8443", "listen: 127.0.0.1:0",
	)
	made := exec.CommandContext(t.Context(), signet, "init", "--trust-domain", "page.example", "--data-dir", filepath.Join(dir, "server"), "--signer-dir", filepath.Join(dir, "signer"))
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("signet init: %v: %s", err, out)
	}
	files := block(page, "yaml")
	if len(files) != 1 {
		t.Fatalf("%d configurations", len(files))
	}
	if err := os.WriteFile(filepath.Join(dir, "server.yaml"), []byte(here.Replace(files[0])+"metrics: \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	units := block(page, "ini")
	if len(units) != 2 {
		t.Fatalf("%d units", len(units))
	}
	for i, want := range []string{"the configuration is good", "connect: no such file"} { // the signer's, the server's
		start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/signet (.*)$`).FindStringSubmatch(units[i])
		if start == nil {
			t.Fatalf("nothing is started by\n%s", units[i])
		}
		args := append(strings.Fields(here.Replace(start[1])), "--check")
		out, err := exec.CommandContext(t.Context(), signet, args...).CombinedOutput()
		if !strings.Contains(string(out), want) || strings.Count(string(out), "\n") > 1 {
			t.Errorf("signet %s: %v, want %q: %s", strings.Join(args, " "), err, want, out)
		}
	}
}

// TestTheServerOfTheSignersPageListensWhereTheAgentsPageCalls: who follows both pages
// has agents on other hosts than the server.
func TestTheServerOfTheSignersPageListensWhereTheAgentsPageCalls(t *testing.T) {
	value := func(page, key string) (host, port string) {
		m := regexp.MustCompile(`(?m)^` + key + `: (.*)$`).FindStringSubmatch(block(read(t, "docs", page), "yaml")[0])
		if m == nil {
			t.Fatalf("the file of %s has no %s", page, key)
		}
		host, port, err := net.SplitHostPort(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return host, port
	}
	at, port := value("SIGNER.md", "listen")
	_, called := value("AGENT.md", "server")
	if a, err := netip.ParseAddr(at); err != nil || a.IsLoopback() || port != called {
		t.Errorf("the server listens on %s:%s, and agents call port %s of another host", at, port, called)
	}
}
