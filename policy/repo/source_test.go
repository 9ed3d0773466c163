package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/identity"
	"signet.example/policy/repo"
)

// fault is what apply says of a spec.
func fault(s repo.SourceSpec) error {
	_, err := s.Build("p")
	return errors.Join(err, s.Check())
}

// wantField checks that the first mistake in err is at path.
func wantField(t *testing.T, what, path string, err error) {
	t.Helper()
	if all := identity.FieldErrors(err); len(all) == 0 || all[0].Path != path || all[0].Msg == "" {
		t.Errorf("%s: got %v, want it at %s", what, err, path)
	}
}

func TestPolicySourceDefaultsToBranchMain(t *testing.T) {
	p, err := repo.SourceSpec{URL: "https://git.example/policy.git"}.Build("p")
	if err != nil || p.Branch != "main" || p.Tag != "" || p.Commit != "" || p.Poll != time.Minute {
		t.Errorf("got %+v, %v", p, err)
	}
	p, err = repo.SourceSpec{URL: "/srv/policy", Tag: "v1.2", Path: "rego/prod", Poll: "5s"}.Build("p")
	if err != nil || p.Branch != "" || p.Tag != "v1.2" || p.Path != "rego/prod" || p.Poll != 5*time.Second {
		t.Errorf("got %+v, %v", p, err)
	}
}

// A23.
func TestPolicySourceThatGitCouldMistakeIsRefusedWithItsField(t *testing.T) {
	good := repo.SourceSpec{URL: "https://git.example/policy.git"}
	commit := strings.Repeat("a", 40)
	type change = func(*repo.SourceSpec)
	for path, changes := range map[string][]change{
		"spec.tag":    {func(s *repo.SourceSpec) { s.Branch, s.Tag = "main", "v1" }},
		"spec.commit": {func(s *repo.SourceSpec) { s.Tag, s.Commit = "v1", commit }, func(s *repo.SourceSpec) { s.Commit = commit[:12] }, func(s *repo.SourceSpec) { s.Commit = strings.ToUpper(commit) }},
		"spec.poll":   {func(s *repo.SourceSpec) { s.Poll = "1ms" }, func(s *repo.SourceSpec) { s.Poll = "often" }},
	} {
		for _, c := range changes {
			s := good
			c(&s)
			err := fault(s)
			wantField(t, path, path, err)
		}
	}
	for _, url := range []string{
		"", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c x", "ext::sh", "ext://x", "git.example/policy", "../policy", "ftp://git.example/x",
		"https:///x", "https://user:pw@git.example/x", "https://token@git.example/x", "ssh://git:pw@git.example/x", "ssh://-oProxyCommand=x/y", "ssh://-x@git.example/y",
		"git@-x:policy", "git@host:-x", "git@host:", "file://host/x", "file:relative", "https://git.example/a b", "https://git.example/\n", "https://git.example/\\x", "https://%zz/",
	} {
		err := fault(repo.SourceSpec{URL: url})
		wantField(t, "url "+url, "spec.url", err)
	}
	for _, ref := range []string{"../../x", "a..b", "-x", "/x", "x/", "a//b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "@", "a@{1}", ".a", "a/.b", "a.lock", "a.", "a\n", strings.Repeat("a", 256)} {
		err := fault(repo.SourceSpec{URL: good.URL, Branch: ref})
		wantField(t, "branch "+ref, "spec.branch", err)
	}
	for _, path := range []string{"/etc", "..", "../x", "a/../b", "a//b", "./a", ".", "a/", "-a", ".git", "a/.GIT/b", "a\\b", "a\x00"} {
		err := fault(repo.SourceSpec{URL: good.URL, Path: path})
		wantField(t, "path "+path, "spec.path", err)
	}
}

func TestPolicySourceTakesTheUsualURLs(t *testing.T) {
	for _, url := range []string{"https://git.example/policy.git", "ssh://git@git.example:22/p.git", "git@git.example:team/p.git", "file:///srv/p", "/srv/p"} {
		if err := fault(repo.SourceSpec{URL: url, Branch: "release/1.x"}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestAllFaultsOfASourceAreToldAtOnce(t *testing.T) {
	var got []string
	for _, f := range identity.FieldErrors(fault(repo.SourceSpec{URL: "ext::sh", Path: "../x", Branch: "a", Tag: "b", Poll: "1ms"})) {
		got = append(got, f.Path)
	}
	if d := cmp.Diff([]string{"spec.tag", "spec.poll", "spec.url", "spec.path"}, got); d != "" {
		t.Error(d)
	}
}

// What apply takes is what is fetched: one check, asked at both ends.
func TestWhatApplyTakesOfASourceIsWhatFetchTakes(t *testing.T) {
	repository := newRepository(t)
	repository.commit("main", repository.tree(rego("a.rego", "package signet.authz")))
	good := repo.SourceSpec{URL: "file://" + repository.dir, Branch: "main", Path: "policies"}
	type change = func(*repo.SourceSpec)
	if err := fault(good); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]change{
		"http":                  func(s *repo.SourceSpec) { s.URL = "http://git.example/p" },
		"git":                   func(s *repo.SourceSpec) { s.URL = "git://git.example/p" },
		"a query":               func(s *repo.SourceSpec) { s.URL = "https://git.example/p?x" },
		"a quote":               func(s *repo.SourceSpec) { s.URL = "ssh://git.example/it's" },
		"64 digits of a commit": func(s *repo.SourceSpec) { s.Branch, s.Commit = "", strings.Repeat("a", 64) },
		"a ref of others":       func(s *repo.SourceSpec) { s.Branch = "../../x" },
		"a tag as an option":    func(s *repo.SourceSpec) { s.Branch, s.Tag = "", "-x" },
		"the root as a dot":     func(s *repo.SourceSpec) { s.Path = "." },
		"git's own folder":      func(s *repo.SourceSpec) { s.Path = ".git/x" },
		"a slash at the end":    func(s *repo.SourceSpec) { s.Path = "policies/" },
	} {
		s := good
		c(&s)
		if fault(s) == nil {
			t.Errorf("%s: applied", what)
		}
		src, err := s.Build("p")
		if err != nil {
			t.Errorf("%s: a server that has it stored does not start: %v", what, err)
		}
		if _, err := repo.Fetch(t.Context(), src, t.TempDir()); err == nil {
			t.Errorf("%s: fetched", what)
		}
	}
}
