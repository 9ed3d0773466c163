package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// TestAnAgentWithoutMorePrivilegesKeepsAnotherUsersFiles: the programs as they are shipped, the agent as the
// user and with the capabilities of its unit; the files are another user's.
func TestAnAgentWithoutMorePrivilegesKeepsAnotherUsersFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root")
	}
	const owner = 1 // daemon
	base, err := os.MkdirTemp("/dev/shm", "se")
	if err != nil {
		parts.Missing(t, "a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) }) // best effort
	dir, told := filepath.Join(base, "files"), filepath.Join(base, "told")
	for path, mode := range map[string]os.FileMode{base: 0o755, dir: 0o711, told: 0o777 | os.ModeSticky} {
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, agentUID, agentUID); err != nil {
		t.Fatal(err)
	}
	entry := "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: db}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/db\", selectors: [\"unix:uid:1\"], ttl: 10s, files: {folder: postgres, layouts: [pem, pkcs12], command: reload}}\n"
	w := meshtest.Start(t, meshtest.Options{
		NoAgent: true, Manifests: entry,
		AgentExtra: "files:\n  dir: " + dir + "\n  users: [\"1:1\"]\n  commands:\n    - {name: reload, run: [/bin/sh, -c, 'head -n1 $SPIFFE_CREDENTIAL_FOLDER/credential-bundle.private-key.pem >> " + told + "/keys; id -u >> " + told + "/who']}\n",
	})
	only := "-all,+sys_ptrace,+setuid,+setgid,+kill"
	as := []string{"setpriv", "--reuid", strconv.Itoa(agentUID), "--regid", strconv.Itoa(agentUID), "--clear-groups", "--pdeathsig", "KILL", "--bounding-set", only, "--inh-caps", only, "--ambient-caps", only, "--", w.Place(parts.Signet(t), "signet")}
	w.StartAgentAs(agentUID, "envoy", as...)
	folder := filepath.Join(dir, "postgres")
	var last []byte
	rotated := func() bool {
		content, err := os.ReadFile(filepath.Join(folder, "credential-bundle.private-key.pem"))
		if err != nil || bytes.Equal(content, last) {
			return false
		}
		pair, err := tls.X509KeyPair(content, content)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		trust, err := os.ReadFile(filepath.Join(folder, "test.example.spiffe-trust-bundle.pem"))
		if err != nil || !roots.AppendCertsFromPEM(trust) {
			t.Fatalf("the roots: %v", err)
		}
		between := x509.NewCertPool()
		between.AppendCertsFromPEM(content)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil || pair.Leaf.URIs[0].String() != "spiffe://test.example/db" {
			t.Fatalf("%v, %v", pair.Leaf.URIs, err)
		}
		last = content
		return true
	}
	for range 3 {
		eventually(t, 20*time.Second, "a rotation", rotated)
	}
	info, err := os.Stat(filepath.Join(folder, "credential-bundle.private-key.pem"))
	if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != owner { //nolint:forcetypeassert // Linux
		t.Errorf("%v, %v", info, err)
	}
	eventually(t, 30*time.Second, "the command", func() bool {
		keys, _ := os.ReadFile(filepath.Join(told, "keys"))
		who, _ := os.ReadFile(filepath.Join(told, "who"))
		return strings.Count(string(keys), "BEGIN PRIVATE KEY") >= 2 && strings.HasPrefix(string(who), "1\n1\n")
	})
	eventually(t, 10*time.Second, "signet certs", func() bool {
		out, _ := w.CLI("certs", "--columns", "identity,consumer", "--no-headers")
		return slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return strings.Contains(line, "spiffe://test.example/db") && strings.Contains(line, "workload:files/postgres")
		})
	})
	// The entry goes while the agent is down.
	w.Agent.Kill()
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the folder went with the agent: %v", err)
	}
	if out, code := w.CLI("delete", "entry", "db"); code != 0 {
		t.Fatal(out)
	}
	w.StartAgentAs(agentUID, "envoy", as...)
	eventually(t, 20*time.Second, "the end of the folder", func() bool { _, err := os.Lstat(folder); return os.IsNotExist(err) })
}

func TestAShellFetchesAndWatchesItsIdentity(t *testing.T) {
	base, err := os.MkdirTemp("/dev/shm", "se")
	if err != nil {
		parts.Missing(t, "a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) }) // best effort
	entry := func(name string, uid int) string {
		return "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: " + name + "}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/" + name + "\", selectors: [\"unix:uid:" + strconv.Itoa(uid) + "\"], ttl: 5s}\n"
	}
	w := meshtest.Start(t, meshtest.Options{Manifests: meshtest.Join(entry("me", os.Getuid()), entry("too", os.Getuid()))})
	run := func(args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), parts.Signet(t), append([]string{"svid"}, args...)...)
		cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET=unix://"+filepath.Join(w.AgentDir(), "workload.sock"))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	me := filepath.Join(base, "me")
	if out, code := run("fetch", "--columns", "identity", "--no-headers", "--dir", me, "--id", "spiffe://test.example/too", "--layouts", "pem"); code != 0 || !strings.Contains(out, "spiffe://test.example/me\n") || !strings.Contains(out, "spiffe://test.example/too\n") {
		t.Fatalf("%d: %s", code, out)
	}
	serial := func() string {
		content, err := os.ReadFile(filepath.Join(me, "credential-bundle.private-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(content, content)
		if err != nil || pair.Leaf.URIs[0].String() != "spiffe://test.example/too" {
			t.Fatalf("%v", err)
		}
		return pair.Leaf.SerialNumber.String()
	}
	first := serial()
	if entries, err := os.ReadDir(me); err != nil || len(entries) != 5 { // .pem-1 .signet, pem and the standard's two
		t.Errorf("%v, %v", entries, err)
	}
	watch := w.Run("watch", parts.Signet(t), "svid", "watch", "-o", "json", "--workload-socket", filepath.Join(w.AgentDir(), "workload.sock"), "--dir", me, "--id", "spiffe://test.example/too")
	eventually(t, 20*time.Second, "a renewal", func() bool { return serial() != first })
	watch.Stop()
	for what, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a disk":            {[]string{"fetch", "--dir", filepath.Join(t.TempDir(), "me")}, 1, "not on a tmpfs"},
		"somebody's folder": {[]string{"fetch", "--dir", "/dev/shm"}, 1, "chmod"},
		"no agent":          {[]string{"fetch", "--timeout", "1s", "--workload-socket", base + "/none.sock"}, 4, "nobody answers"},
		"another identity":  {[]string{"fetch", "--dir", me, "--id", "spiffe://test.example/other"}, 1, "no such identity"},
		"no folder":         {[]string{"fetch", "--id", "spiffe://test.example/me"}, 2, "--dir"},
		"an unknown layout": {[]string{"fetch", "--dir", me, "--layouts", "jks"}, 2, "pem and pkcs12"},
	} {
		if out, code := run(tc.args...); code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("%s: %d: %s", what, code, out)
		}
	}
	for _, name := range []string{"me", "too"} {
		if out, code := w.CLI("delete", "entry", name); code != 0 {
			t.Fatal(out)
		}
	}
	eventually(t, 10*time.Second, "the refusal", func() bool {
		out, code := run("fetch")
		return code == 5 && strings.Contains(out, "unix:uid:"+strconv.Itoa(os.Getuid()))
	})
}
