package server_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/cgi" //nolint:gosec // runs git in a test; Go's own has no Httpoxy
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"signet.example/server"
	"signet.example/test/parts"
)

// servePrivate serves a repository over HTTPS by git's own http-backend, behind a password.
func servePrivate(t *testing.T, dir string) (url string) {
	t.Helper()
	backend := &cgi.Handler{Path: parts.Program(t, "git"), Args: []string{"http-backend"}, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, password, _ := q.BasicAuth(); user != "reader" || password != "secretcanary" {
			w.Header().Set("www-authenticate", "Basic")
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	return srv.URL + "/" + filepath.Base(dir) + "/.git"
}

// noted is a log that a test reads.
type noted struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *noted) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *noted) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

func TestAPrivateRepositoryIsReadWithThePasswordOfItsFile(t *testing.T) {
	p := newRepo(t)
	want := p.commit(map[string]string{"main.rego": allowAll, "main_test.rego": passes})
	url := servePrivate(t, p.dir)
	file := filepath.Join(shortDir(t), "git")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	log := &noted{}
	var git []server.PolicyGit
	r := newRigWith(t, func(ctx context.Context, cfg server.Config, _ *slog.Logger) error {
		cfg.PolicyGit = git
		return runInProcess(ctx, cfg, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	})
	r.apply("apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: main}\nspec: {url: \"" + url + "\", branch: main, poll: 1h}\n")
	if st := r.sync(); !strings.Contains(st.GetError(), "credentials_file") || !strings.Contains(st.GetError(), "policy_git") {
		t.Errorf("without a login: %v", st)
	}
	r.halt()
	origin := url[:strings.Index(url[len("https://"):], "/")+len("https://")]
	git = []server.PolicyGit{{URL: origin, CredentialsFile: file}, {URL: "https://other.example", CredentialsFile: "/none"}}
	write("reader:wrongcanary\n", 0o600)
	r.start()
	if st := r.sync(); !strings.Contains(st.GetError(), "refuses the user and password of the credentials_file") {
		t.Errorf("wrong password: %v", st)
	}
	write("reader:secretcanary\n", 0o600) // without a restart
	if st := r.sync(); st.GetError() != "" || st.GetCommit() != want {
		t.Errorf("right password: %v", st)
	}
	write("secretcanary", 0o600)
	if st := r.sync(); !strings.Contains(st.GetError(), "user:password") {
		t.Errorf("no user: %v", st)
	}
	write("reader:secretcanary\n", 0o644)
	if st := r.sync(); !strings.Contains(st.GetError(), "chmod") {
		t.Errorf("a file that others read: %v", st)
	}
	if strings.Contains(log.String(), "canary") {
		t.Errorf("a password in the log:\n%s", log)
	}
	_ = filepath.WalkDir(r.cfg.DataDir, func(path string, d os.DirEntry, _ error) error {
		if b, err := os.ReadFile(path); err == nil && !d.IsDir() && bytes.Contains(b, []byte("canary")) {
			t.Errorf("%s has the password", path)
		}
		return nil
	})
}

func TestALoginIsForItsURLAndBelow(t *testing.T) {
	dir := shortDir(t)
	file := func(name string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte("u:"+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	cfg := server.Config{PolicyGit: []server.PolicyGit{
		{URL: "https://git.example/team", CredentialsFile: file("team")},
		{URL: "https://git.example/team/own.git", CredentialsFile: file("own")},
		{URL: "https://git.example:8443", CredentialsFile: file("port")},
		{URL: "ssh://git@git.example/", SSHKeyFile: file("ssh")},
	}}
	for url, want := range map[string]string{
		"https://git.example/team/p.git":            "team",
		"https://GIT.example:443/team/p.git":        "team",
		"https://git.example/team/own.git":          "own",
		"https://git.example:8443/team/p.git":       "port",
		"https://git.example/teammate/p.git":        "",
		"https://git.example/team/../other/p.git":   "",
		"https://git.example/team/%2e%2e/other.git": "",
		"https://git.example.evil.example/team/p":   "",
		"https://git.example":                       "",
		"http://git.example/team/p.git":             "",
		"git@git.example:team/p.git":                "ssh",
		"ssh://git@git.example:22/team/p.git":       "ssh",
		"ssh://git@git.example:2222/team/p.git":     "",
		"root@git.example:team/p.git":               "",
		"/srv/p":                                    "",
	} {
		l, err := cfg.PolicyLogin(url)
		got := l.Password
		if len(l.SSHKey) > 0 {
			got = strings.TrimPrefix(string(l.SSHKey), "u:")
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
}

func TestLoginsThatCannotBeMeantAreRefusedByKey(t *testing.T) {
	for want, g := range map[string]server.PolicyGit{
		`want https, ssh or file`:            {URL: "http://git.example/", CredentialsFile: "/f"},
		"url: want https or ssh":             {URL: "/srv/p", CredentialsFile: "/f"},
		"an https URL has a credentials_":    {URL: "https://git.example/", SSHKeyFile: "/f"},
		"an ssh URL has an ssh_key_file":     {URL: "git@git.example:p", CredentialsFile: "/f"},
		"the user stands in the credentials": {URL: "https://canary@git.example/", CredentialsFile: "/f"},
		`"f" is not an absolute path`:        {URL: "https://git.example/", CredentialsFile: "f"},
	} {
		cfg := server.Config{DataDir: "/x", PolicyGit: []server.PolicyGit{g}}.Complete()
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "policy_git[0]") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v: %v", g, err)
		}
	}
	file := filepath.Join(shortDir(t), "git")
	if err := os.WriteFile(file, []byte("u:p"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(shortDir(t), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	err := server.Run(t.Context(), server.Config{DataDir: data, PolicyGit: []server.PolicyGit{{URL: "https://git.example/", CredentialsFile: file}}}, testLog(t))
	if err == nil || !strings.Contains(err.Error(), "chmod") || !strings.Contains(err.Error(), file) {
		t.Errorf("a file that others read: %v", err)
	}
}

func TestApplyRefusesTheURLsThatSyncWouldNotFetch(t *testing.T) {
	r := newRig(t)
	for _, url := range []string{"http://git.example/p", "git://git.example/p", "https://git.example/p?x=1"} {
		_, err := r.tryApply("apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: main}\nspec: {url: \"" + url + "\"}\n")
		if err == nil || !strings.Contains(err.Error(), "spec.url") || !strings.Contains(err.Error(), "test.yaml:4") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
