package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// TestWhoeverChecksIsToldACommandThatWorks sets up what the pages say, for users that
// every host has, and checks as the pages do, as root and as the service's user.
func TestWhoeverChecksIsToldACommandThatWorks(t *testing.T) {
	if os.Getuid() != 0 {
		parts.Missing(t, "the users of a host need root")
	}
	parts.Program(t, "setpriv")
	dir, err := os.MkdirTemp("", "page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // all users of the page come here
		t.Fatal(err)
	}
	put := func(name string, content []byte, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, content, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	signet, err := os.ReadFile(parts.Signet(t))
	if err != nil {
		t.Fatal(err)
	}
	put("signet", signet, 0o755)
	put("envoy", []byte("#!/bin/sh\necho version: none\n"), 0o755)
	sh := func(command string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=/root", "SIGNET_TOKEN_FILE=-"} // a token is made when it is used
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	here := strings.NewReplacer("/var/lib/signet-agent", dir+"/agent", "/run/signet", dir+"/run", "/etc/signet/", dir+"/", "10.0.0.7", "127.0.0.7",
		"signet-agent", "daemon", "signet-envoy", "bin", "signet-authz", "games", "=signet ", "=sys ")
	page := read(t, "docs", "AGENT.md")
	put("agent.yaml", []byte(here.Replace(block(page, "yaml")[0])+"metrics: 127.0.0.1:0\nsocket_dir: "+dir+"/run\n"), 0o644)
	put("server.yaml", []byte("data_dir: "+dir+"/server\nlisten: 127.0.0.1:0\nmetrics: \"\"\n"), 0o644)
	if out, err := sh("signet init --trust-domain page.example --data-dir " + dir + "/server && chown -R sys: " + dir + "/server"); err != nil {
		t.Fatalf("signet init: %v: %s", err, out)
	}
	commands := func(page, has string) string {
		t.Helper()
		for _, b := range regexp.MustCompile("(?ms)^```\\w*\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
			if strings.Contains(b[1], has) {
				return regexp.MustCompile("(?m)^systemctl .*$").ReplaceAllString(here.Replace(b[1]), "")
			}
		}
		t.Fatalf("no command has %q", has)
		return ""
	}
	for _, c := range []struct{ what, command, told string }{
		{"the agent's page", commands(page, "agent.yaml --check"), ""},
		{"root, of an agent", "signet agent --config agent.yaml --check", "belongs to uid 1,"},
		{"the agent's user", "setpriv --reuid=daemon --regid=daemon --init-groups signet agent --config agent.yaml --check", "lacks CAP_SETUID"},
		{"root, of who has listened", "signet agent owners list --data-dir " + dir + "/agent", "belongs to uid 1,"},
		{"the signer's page", commands(read(t, "docs", "SIGNER.md"), "server.yaml --check"), ""},
		{"root, of a server", "signet server --config server.yaml --check", "belongs to uid 3,"},
	} {
		out, err := sh(c.command)
		if c.told != "" {
			said, line, _ := strings.Cut(out, "setpriv ")
			if err == nil || strings.Count(out, "\n") != 2 || strings.Count(said, c.told) != 1 || strings.Contains(out, "chown") {
				t.Errorf("%s: %v: want %q once, with what works: %s", c.what, err, c.told, out)
			}
			out, err = sh("setpriv " + line)
		}
		if err != nil || strings.TrimSpace(out) != "the configuration is good" && !strings.Contains(out, "no application has listened") {
			t.Errorf("%s: what is to work ends with %v: %s", c.what, err, out)
		}
	}
}
