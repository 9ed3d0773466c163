package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
)

// repo is a policy repository on disk.
type repo struct {
	t   *testing.T
	dir string
	git *git.Repository
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	dir := t.TempDir()
	g, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	if err != nil {
		t.Fatal(err)
	}
	return &repo{t: t, dir: dir, git: g}
}

func (r *repo) commit(files map[string]string) string {
	r.t.Helper()
	w, err := r.git.Worktree()
	if err != nil {
		r.t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
			r.t.Fatal(err)
		}
		if _, err := w.Add(name); err != nil {
			r.t.Fatal(err)
		}
	}
	who := &object.Signature{Name: "test", Email: "test@test.example", When: time.Now()}
	hash, err := w.Commit("policy", &git.CommitOptions{Author: who, Committer: who})
	if err != nil {
		r.t.Fatal(err)
	}
	return hash.String()
}

func (r *repo) source() string {
	return "apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: main}\nspec: {url: \"file://" + r.dir + "\", branch: main, poll: 1h}\n"
}

const (
	allowAll = "package signet.authz\n\nimport rego.v1\n\nallow contains \"everyone\" if true\n"
	passes   = "package signet.authz_test\n\nimport rego.v1\n\ntest_one if 1 == 1\n"
	fails    = "package signet.authz_test\n\nimport rego.v1\n\ntest_one if 1 == 2\n"
)

func (r *rig) sync() *api.PolicyStatus {
	r.t.Helper()
	resp, err := r.admin.SyncPolicy(r.t.Context(), &api.SyncPolicyRequest{})
	if err != nil || len(resp.GetStatuses()) != 1 {
		r.t.Fatalf("sync: %v, %v", resp, err)
	}
	return resp.GetStatuses()[0]
}

func TestAPolicyIsServedWhenItsTestsPassAndTheLastGoodOneStays(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	own := h.followOwn()
	web := h.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	awaitFinding(t, r, "SIG006", "no policy is loaded")

	p := newRepo(t)
	first := p.commit(map[string]string{"main.rego": allowAll, "main_test.rego": passes})
	r.apply(p.source())
	st := r.sync()
	if st.GetError() != "" || st.GetCommit() != first || st.GetTests() != 1 || st.GetModules() != 1 {
		t.Fatalf("status %v", st)
	}
	served := func(f *follower, what, revision string) {
		t.Helper()
		f.await(what, func(s *ads.Set, _ *api.View) bool { return s.Get(ads.PolicyType, revision) != nil })
	}
	served(own, "the revision", st.GetRevision())
	web.await("the stamp", func(_ *ads.Set, v *api.View) bool { return v.GetPolicyRevision() == st.GetRevision() })

	for name, files := range map[string]map[string]string{
		"a test that fails":   {"main_test.rego": fails},
		"what is no Rego":     {"main_test.rego": passes, "main.rego": "package signet.authz\n\nallow contains"},
		"what is not allowed": {"main_test.rego": passes, "main.rego": strings.Replace(allowAll, "if true", `if http.send({"method": "get", "url": "http://127.0.0.1"}).status_code == 200`, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			p.commit(files)
			bad := r.sync()
			if bad.GetError() == "" || bad.GetCommit() != first || bad.GetRevision() != st.GetRevision() || bad.GetTests() != 1 || bad.GetChanged() {
				t.Errorf("status %v", bad)
			}
			awaitFinding(t, r, "SIG005", first)
		})
	}
	second := p.commit(map[string]string{"main.rego": strings.Replace(allowAll, "everyone", "all", 1), "main_test.rego": passes})
	good := r.sync()
	if good.GetError() != "" || good.GetCommit() != second || !good.GetChanged() {
		t.Fatalf("status %v", good)
	}
	served(own, "the new revision", good.GetRevision())
	served(own, "the one before", st.GetRevision())
}

func TestARestartedServerServesTheLastGoodPolicyThoughTheRepositoryIsGone(t *testing.T) {
	r := newRig(t)
	p := newRepo(t)
	commit := p.commit(map[string]string{"main.rego": allowAll})
	r.apply(registry + shop + "---\n" + p.source())
	revision := r.sync().GetRevision()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	h := r.join("front")
	r.halt()
	r.start()
	if err := h.attest(""); err != nil {
		t.Fatal(err)
	}
	own := h.followOwn()
	own.await("the policy", func(s *ads.Set, _ *api.View) bool {
		res := s.Get(ads.PolicyType, revision)
		if res == nil {
			return false
		}
		rev := &api.PolicyRevision{}
		return proto.Unmarshal(res.Body, rev) == nil && rev.GetCommit() == commit && len(rev.GetModules()) == 1
	})
	awaitFinding(t, r, "SIG005", commit)
}

func TestADeletedSourceTakesItsPolicyAlong(t *testing.T) {
	r := newRig(t)
	p := newRepo(t)
	p.commit(map[string]string{"main.rego": allowAll})
	r.apply(p.source())
	r.sync()
	_, err := r.tryApply(strings.Replace(p.source(), "name: main", "name: other", 1))
	if err == nil || !strings.Contains(err.Error(), "PolicySource main is there already") {
		t.Errorf("a second source: %v", err)
	}
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "policysource", Name: "main"}); err != nil {
		t.Fatal(err)
	}
	awaitFinding(t, r, "SIG006", "no policy is loaded")
}

func TestRoutesAreStampedWhenTheAgentsHaveLoadedTheRevision(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	report, _ := h.session()
	report(&api.Report{PolicyRevision: "old"})
	own := h.followOwn()
	web := h.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	web.await("a view", func(*ads.Set, *api.View) bool { return true })
	p := newRepo(t)
	p.commit(map[string]string{"main.rego": allowAll})
	r.apply(p.source())
	revision := r.sync().GetRevision()
	own.await("the revision", func(s *ads.Set, _ *api.View) bool { return s.Get(ads.PolicyType, revision) != nil })
	if _, v := web.now(); v.GetPolicyRevision() == revision {
		t.Error("the routes are stamped before the agent loaded the revision")
	}
	report(&api.Report{PolicyRevision: revision})
	web.await("the stamp", func(_ *ads.Set, v *api.View) bool { return v.GetPolicyRevision() == revision })
}
