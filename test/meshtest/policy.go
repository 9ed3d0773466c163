package meshtest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// CommitPolicy writes files into the World's policy repository, commits, and
// gives the repository's path. LastCommit tells the commit.
func (w *World) CommitPolicy(files map[string]string) string {
	w.T.Helper()
	dir := filepath.Join(w.Dir, "policy")
	repo, err := git.PlainOpen(dir)
	if err != nil {
		repo, err = git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	}
	if err != nil {
		w.T.Fatal(err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		w.T.Fatal(err)
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			w.T.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			w.T.Fatal(err)
		}
		if _, err := tree.Add(name); err != nil {
			w.T.Fatal(err)
		}
	}
	if _, err := tree.Commit("policy", &git.CommitOptions{AllowEmptyCommits: true, Author: &object.Signature{Name: "test", Email: "test@test.example", When: time.Now()}}); err != nil {
		w.T.Fatal(err)
	}
	return dir
}

// LastCommit of the policy repository.
func (w *World) LastCommit() string {
	w.T.Helper()
	repo, err := git.PlainOpen(filepath.Join(w.Dir, "policy"))
	if err != nil {
		w.T.Fatal(err)
	}
	head, err := repo.Head()
	if err != nil {
		w.T.Fatal(err)
	}
	return head.Hash().String()
}
