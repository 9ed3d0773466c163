package repo_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"signet.example/policy/repo"
)

// repository is a bare git repository that a test writes commits into, object
// by object, so that it can hold what git itself would refuse to write.
type repository struct {
	t    *testing.T
	dir  string
	repo *git.Repository
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	dir := t.TempDir()
	repo, err := git.PlainInit(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return &repository{t, dir, repo}
}

type file struct {
	name string
	mode filemode.FileMode
	body string
}

func (r *repository) object(kind plumbing.ObjectType, encode func(plumbing.EncodedObject) error) plumbing.Hash {
	r.t.Helper()
	o := r.repo.Storer.NewEncodedObject()
	o.SetType(kind)
	if err := encode(o); err != nil {
		r.t.Fatal(err)
	}
	h, err := r.repo.Storer.SetEncodedObject(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *repository) blob(body string) plumbing.Hash {
	return r.object(plumbing.BlobObject, func(o plumbing.EncodedObject) error {
		w, err := o.Writer()
		if err != nil {
			return err
		}
		_, err = w.Write([]byte(body))
		return errors.Join(err, w.Close())
	})
}

// rawTree writes a tree as its bytes: the library refuses to write hostile names.
func (r *repository) rawTree(entries ...object.TreeEntry) plumbing.Hash {
	return r.object(plumbing.TreeObject, func(o plumbing.EncodedObject) error {
		w, err := o.Writer()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := fmt.Fprintf(w, "%o %s\x00%s", uint32(e.Mode), e.Name, e.Hash[:]); err != nil {
				return err
			}
		}
		return w.Close()
	})
}

func (r *repository) tree(files ...file) plumbing.Hash {
	var entries []object.TreeEntry
	for _, f := range files {
		h := plumbing.NewHash("1234567890123456789012345678901234567890")
		if f.mode != filemode.Submodule {
			h = r.blob(f.body)
		}
		entries = append(entries, object.TreeEntry{Name: f.name, Mode: f.mode, Hash: h})
	}
	return r.rawTree(entries...)
}

func (r *repository) commit(branch string, policies plumbing.Hash) plumbing.Hash {
	r.t.Helper()
	root := r.rawTree(object.TreeEntry{Name: "README", Mode: filemode.Regular, Hash: r.blob("x")}, object.TreeEntry{Name: "policies", Mode: filemode.Dir, Hash: policies})
	who := object.Signature{Name: "t", Email: "t@example", When: time.Unix(1, 0)}
	h := r.object(plumbing.CommitObject, (&object.Commit{Author: who, Committer: who, Message: "m", TreeHash: root}).Encode)
	if err := r.repo.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName(branch), h)); err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *repository) source() repo.Source {
	return repo.Source{Name: "main", URL: "file://" + r.dir, Branch: "main", Path: "policies"}
}

func rego(name, body string) file { return file{name, filemode.Regular, body} }

func TestFetchReadsABranchATagAndACommit(t *testing.T) {
	r := newRepository(t)
	first := r.commit("main", r.tree(rego("a.rego", "package signet.authz"), rego("a_test.rego", "package signet.authz_test"), rego("notes.md", "n")))
	tag := r.object(plumbing.TagObject, (&object.Tag{Name: "v1", Message: "m", TargetType: plumbing.CommitObject, Target: first}).Encode)
	if err := r.repo.Storer.SetReference(plumbing.NewHashReference("refs/tags/v1", tag)); err != nil {
		t.Fatal(err)
	}
	second := r.commit("main", r.tree(rego("b.rego", "package signet.authz")))
	for name, tc := range map[string]struct {
		change func(*repo.Source)
		commit plumbing.Hash
		paths  string
	}{
		"branch":        {func(*repo.Source) {}, second, "policies/b.rego"},
		"tag":           {func(s *repo.Source) { s.Branch, s.Tag = "", "v1" }, first, "policies/a.rego policies/a_test.rego"},
		"commit":        {func(s *repo.Source) { s.Branch, s.Commit = "", first.String() }, first, "policies/a.rego policies/a_test.rego"},
		"absolute path": {func(s *repo.Source) { s.URL = strings.TrimPrefix(s.URL, "file://") }, second, "policies/b.rego"},
	} {
		t.Run(name, func(t *testing.T) {
			src := r.source()
			tc.change(&src)
			tree, err := repo.Fetch(t.Context(), src, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, m := range tree.Modules {
				paths = append(paths, m.Path)
			}
			if tree.Commit != tc.commit.String() || strings.Join(paths, " ") != tc.paths {
				t.Errorf("%s %v", tree.Commit, paths)
			}
		})
	}
}

func TestFetchRefusesWhatATreeMustNotHold(t *testing.T) {
	many := make([]file, 2001)
	for i := range many {
		many[i] = rego(fmt.Sprintf("f%04d.rego", i), "package signet.authz")
	}
	big := strings.Repeat("# 456789\n", 1<<20/9+1)
	var large []file
	for i := range 17 {
		large = append(large, rego(fmt.Sprintf("f%02d.rego", i), big[:1<<20]))
	}
	ok := rego("a.rego", "package signet.authz")
	for name, tc := range map[string]struct {
		files []file
		want  string
	}{
		"symbolic link":          {[]file{ok, {"b.rego", filemode.Symlink, "/etc/passwd"}}, "symbolic links"},
		"link that is no Rego":   {[]file{ok, {"b", filemode.Symlink, "/etc"}}, "symbolic links"},
		"submodule":              {[]file{ok, {"sub", filemode.Submodule, ""}}, "submodules"},
		"data file":              {[]file{ok, rego("data.json", "{}")}, "data files"},
		"climbing name":          {[]file{ok, rego("..", "x")}, "leads elsewhere"},
		"name with a slash":      {[]file{ok, rego("../../x.rego", "x")}, "leads elsewhere"},
		"folded .GIT":            {[]file{ok, rego(".GIT", "x")}, "leads elsewhere"},
		"name with escape":       {[]file{ok, rego("a\x1b[31m.rego", "x")}, "cannot be shown"},
		"too many files":         {many, "more than 2000"},
		"a file of over 1 MiB":   {[]file{rego("a.rego", big)}, "at most 1048576"},
		"more than 4 MiB":        {large, "more than 4194304"},
		"not UTF-8":              {[]file{rego("a.rego", "package signet.authz # \xff")}, "not UTF-8"},
		"no Rego at all":         {[]file{rego("a.txt", "x")}, "no *.rego"},
		"a mode that is no mode": {[]file{ok, {"b.rego", filemode.FileMode(0o120755), "x"}}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.commit("main", r.tree(tc.files...))
			if _, err := repo.Fetch(t.Context(), r.source(), t.TempDir()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestFetchRefusesATreeThatNestsWithoutEnd(t *testing.T) {
	r := newRepository(t)
	h := r.tree(rego("a.rego", "package signet.authz"))
	for range 40 { // each level ten times the one below: 10^40 files from 40 objects
		var same []object.TreeEntry
		for i := range 10 {
			same = append(same, object.TreeEntry{Name: fmt.Sprintf("d%d", i), Mode: filemode.Dir, Hash: h})
		}
		h = r.rawTree(same...)
	}
	r.commit("main", h)
	if _, err := repo.Fetch(t.Context(), r.source(), t.TempDir()); err == nil {
		t.Error("read")
	}
}

func TestFetchDoesNotFollowALinkToTheFolder(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	src := r.source()
	for _, p := range []string{"README", "policies/a.rego", "nowhere", "../policies", "/policies", "policies/..", "policies\\x"} {
		src.Path = p
		if _, err := repo.Fetch(t.Context(), src, t.TempDir()); err == nil {
			t.Errorf("path %q was read", p)
		}
	}
}

func TestFetchRefusesURLsAndReferencesThatAreNone(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	for _, u := range []string{
		"", "--upload-pack=touch /tmp/x", "-x", "ext::sh -c id", "file://--upload-pack=x/y", "file://host/x", "relative/path",
		"http://h/r", "git://h/r", "ssh://-oProxyCommand=x/r", "ssh://-x@h/r", "ssh://h/-x", "https:///r", "https://h/r?x", "https://h/r#f",
		"git@-h:r", "git@h:-r", "git@h::r", "https://h/r\n", "https://h/a b", "ssh://h/it's", "ftp://h/r", "file:///x?y",
	} {
		src := r.source()
		src.URL = u
		if _, err := repo.Fetch(t.Context(), src, t.TempDir()); err == nil || !strings.Contains(err.Error(), "URL") {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, ref := range []string{"../../x", "a..b", "-x", "a b", "a~1", "a^{}", "a:b", "x.lock", "/x", "x/", "a\\b", "@{1}", "a\x7f", "nowhere"} {
		for _, change := range []func(*repo.Source){
			func(s *repo.Source) { s.Branch = ref },
			func(s *repo.Source) { s.Branch, s.Tag = "", ref },
			func(s *repo.Source) { s.Branch, s.Commit = "", ref },
		} {
			src := r.source()
			change(&src)
			if tree, err := repo.Fetch(t.Context(), src, t.TempDir()); err == nil {
				t.Errorf("%q: read %s", ref, tree.Commit)
			}
		}
	}
	both := r.source()
	both.Tag = "v1"
	if _, err := repo.Fetch(t.Context(), both, t.TempDir()); err == nil {
		t.Error("branch and tag together")
	}
}

func TestCredentialsAreInNoErrorAndNoTree(t *testing.T) {
	src := repo.Source{Name: "main", URL: "https://tok%65ncanary:pass%2Fcanary@127.0.0.1:1/r.git", Branch: "main"}
	_, err := repo.Fetch(t.Context(), src, t.TempDir())
	if err == nil {
		t.Fatal("fetched from nowhere")
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if strings.Contains(e.Error(), "canary") {
			t.Errorf("credentials in %q", e)
		}
	}
	if !strings.Contains(err.Error(), "https://127.0.0.1:1/r.git") {
		t.Errorf("no URL in %q", err)
	}
}

func TestFetchOfALocalRepositoryWritesNothing(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	dir := t.TempDir()
	if _, err := repo.Fetch(t.Context(), r.source(), dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := repo.Fetch(ctx, r.source(), t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestFetchOfADamagedRepositoryIsAnError(t *testing.T) {
	r := newRepository(t)
	r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	err := filepath.WalkDir(filepath.Join(r.dir, "objects"), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, []byte("damaged"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Fetch(t.Context(), r.source(), t.TempDir()); err == nil {
		t.Error("read")
	}
}
