package server_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// The process that reads what others push has no capability, no descriptor and of the
// environment nothing but what a fetch needs.
func TestThePolicyChildHasOnlyWhatAFetchNeeds(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root: the process lets nobody else look at it")
	}
	hold := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(hold) })
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SECRET_OF_THE_SERVER", "canary")
	r := newRig(t)
	r.apply("apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: main}\nspec: {url: \"" + srv.URL + "/r.git\", branch: main, poll: 1h}\n")
	var proc string
	eventually(t, "the process", func() bool {
		all, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			b, err := os.ReadFile(name)
			status, err2 := os.ReadFile(filepath.Dir(name) + "/status")
			ours := strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid()))
			if err == nil && err2 == nil && ours && strings.Contains(string(b), "\x00policy-child\x00") {
				proc = filepath.Dir(name)
				adj, err := os.ReadFile(proc + "/oom_score_adj")
				return err == nil && string(adj) == "1000\n" // it has begun
			}
		}
		return false
	})
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Umask:\t0077"} {
		if !strings.Contains(string(status), "\n"+want+"\n") {
			t.Errorf("want %s in:\n%s", want, status)
		}
	}
	environ, err := os.ReadFile(proc + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for v := range strings.SplitSeq(strings.TrimRight(string(environ), "\x00"), "\x00") {
		name, _, _ := strings.Cut(v, "=")
		names = append(names, name)
	}
	for _, name := range names {
		if !slices.Contains([]string{"SSL_CERT_FILE", "SSL_CERT_DIR", "HOME", "GOMEMLIMIT", "GOTRACEBACK", "GOCOVERDIR", "SSH_AUTH_SOCK", "SSH_KNOWN_HOSTS"}, name) &&
			!strings.HasSuffix(strings.ToLower(name), "_proxy") {
			t.Errorf("it has %s in its environment", name)
		}
	}
	links, err := filepath.Glob(proc + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		to, err := os.Readlink(l)
		if info, gone := os.Stat(l); err == nil && gone == nil && info.Mode().Perm()&0o004 != 0 && !strings.HasPrefix(to, os.TempDir()) && (info.Mode().IsRegular() || info.IsDir()) {
			continue // it opened that itself, and anybody may: the system's roots, say; what is the server's lies elsewhere
		}
		if err == nil && !slices.ContainsFunc([]string{"/dev/null", "pipe:", "socket:", "anon_inode:", "/sys/fs/cgroup/"}, func(kind string) bool { return strings.HasPrefix(to, kind) }) {
			t.Errorf("it has %s open", to)
		}
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("its folder is %q, %v", cwd, err)
	}
	for _, limit := range []string{"Max cpu time              30 ", "Max open files            256 "} {
		b, err := os.ReadFile(proc + "/limits")
		if err != nil || !strings.Contains(string(b), limit) {
			t.Errorf("want %s in\n%s %v", limit, b, err)
		}
	}
}
