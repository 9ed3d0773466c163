package repo_test

import (
	"net/http"
	"net/http/cgi" //nolint:gosec // runs git in a test; Go's own has no Httpoxy
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"signet.example/policy/repo"
	"signet.example/test/parts"
)

// serveGit serves a repository over HTTPS by git's own http-backend, behind a password.
func serveGit(t *testing.T, r *repository) (url string) {
	t.Helper()
	backend := &cgi.Handler{Path: parts.Program(t, "git"), Args: []string{"http-backend"}, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if _, password, _ := q.BasicAuth(); password != "secretcanary" {
			w.Header().Set("www-authenticate", "Basic")
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	t.Cleanup(srv.Close)
	old := client.Protocols["https"]
	client.InstallProtocol("https", githttp.NewClient(srv.Client()))
	t.Cleanup(func() { client.InstallProtocol("https", old) })
	return strings.Replace(srv.URL, "https://", "https://u:secretcanary@", 1) + "/" + filepath.Base(r.dir)
}

func TestFetchOverHTTPSKeepsABareCacheAndFollowsTheBranch(t *testing.T) {
	r := newRepository(t)
	first := r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	src, dir := r.source(), t.TempDir()
	src.URL = serveGit(t, r)
	for i := range 4 {
		want := first
		if i > 1 { // a commit that is no descendant: a forced push
			want = r.commit("main", r.tree(rego("b.rego", "package signet.authz # "+strings.Repeat("x", i))))
		}
		tree, err := repo.Fetch(t.Context(), src, dir)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Commit != want.String() || strings.Contains(tree.URL, "canary") {
			t.Errorf("%d: %s from %s, want %s", i, tree.Commit, tree.URL, want)
		}
	}
	if found, _ := filepath.Glob(dir + "/*/*.rego"); len(found) > 0 {
		t.Errorf("checked out: %v", found)
	}
	src.Branch, src.Commit = "", first.String()
	src.URL = strings.Replace(src.URL, "127.0.0.1", "localhost", 1) // another cache
	if tree, err := repo.Fetch(t.Context(), src, dir); err == nil {
		t.Logf("commit %s that no branch has was given", tree.Commit)
	}
}

func TestFetchOfACommitOverHTTPS(t *testing.T) {
	r := newRepository(t)
	want := r.commit("other", r.tree(rego("a.rego", "package signet.authz")))
	r.commit("main", r.tree(rego("b.rego", "package signet.authz")))
	src := r.source()
	src.URL, src.Branch, src.Commit = serveGit(t, r), "", want.String()
	tree, err := repo.Fetch(t.Context(), src, t.TempDir())
	if err != nil || tree.Commit != want.String() {
		t.Errorf("%s %v", tree.Commit, err)
	}
}

func TestADamagedCacheIsMadeAnew(t *testing.T) {
	r := newRepository(t)
	want := r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	src, dir := r.source(), t.TempDir()
	src.URL = serveGit(t, r)
	for i := range 3 {
		tree, err := repo.Fetch(t.Context(), src, dir)
		if err != nil || tree.Commit != want.String() {
			t.Fatalf("%d: %s %v", i, tree.Commit, err)
		}
		damaged, _ := filepath.Glob(dir + "/git-*/" + []string{"objects/*/*", "config", "HEAD"}[i])
		for _, f := range damaged {
			if err := os.Chmod(f, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, []byte("\x00damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tree, err := repo.Fetch(t.Context(), src, dir); err != nil || tree.Commit != want.String() {
		t.Errorf("%s %v", tree.Commit, err)
	}
}

func TestAWrongPasswordIsAnErrorWithoutIt(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	src := r.source()
	src.URL = strings.Replace(serveGit(t, r), "secretcanary", "wrongcanary", 1)
	if _, err := repo.Fetch(t.Context(), src, t.TempDir()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func TestALoginIsUsedAndItsAbsenceNamesTheKeys(t *testing.T) {
	r := newRepository(t)
	want := r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	src := r.source()
	src.URL = strings.Replace(serveGit(t, r), "u:secretcanary@", "", 1)
	tree, err := repo.Login{User: "u", Password: "secretcanary"}.Fetch(t.Context(), src, t.TempDir())
	if err != nil || tree.Commit != want.String() {
		t.Errorf("%s %v", tree.Commit, err)
	}
	for wanted, l := range map[string]repo.Login{"name a credentials_file": {}, "refuses the user and password": {User: "u", Password: "wrongcanary"}} {
		if _, err := l.Resolve(t.Context(), src); err == nil || !strings.Contains(err.Error(), wanted) || !strings.Contains(err.Error(), "policy_git") || strings.Contains(err.Error(), "canary") {
			t.Errorf("want %q: %v", wanted, err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	src.URL = "git@127.0.0.1:p.git"
	if _, err := (repo.Login{}).Resolve(t.Context(), src); err == nil || !strings.Contains(err.Error(), "ssh_key_file") {
		t.Errorf("ssh without a key: %v", err)
	}
	if _, err := (repo.Login{SSHKey: []byte("canary")}).Resolve(t.Context(), src); err == nil || !strings.Contains(err.Error(), "ssh_key_file") || strings.Contains(err.Error(), "canary") {
		t.Errorf("no key: %v", err)
	}
}
