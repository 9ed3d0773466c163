package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"signet.example/identity"
)

const fetchTime = 2 * time.Minute

// fetched is where the wanted reference of the remote is kept in the cache.
const fetched = plumbing.ReferenceName("refs/signet/source")

// Tree is what Fetch read of one commit.
type Tree struct {
	// URL without credentials.
	URL, Commit string
	// Modules with their tests, sorted by path.
	Modules []Module
}

// Fetch reads the modules of a source at its branch, tag or commit as they are
// now. A remote repository is fetched into a bare cache below dir, where
// nothing is ever checked out; a local one is read in place, without a copy
// and without a git program. An error has no credentials in it.
func Fetch(ctx context.Context, src identity.PolicySource, dir string) (Tree, error) {
	rem, err := parseRemote(src.URL)
	if err != nil {
		return Tree{}, fmt.Errorf("policy source %s: %w", src.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	tree, err := fetch(ctx, rem, src, dir)
	if err != nil {
		return Tree{}, fmt.Errorf("policy source %s: %s: %w", src.Name, rem.display, rem.scrub(err))
	}
	return tree, nil
}

func fetch(ctx context.Context, rem remote, src identity.PolicySource, dir string) (Tree, error) {
	want, err := parseWanted(src)
	if err != nil {
		return Tree{}, err
	}
	root, err := cleanRoot(src.Path)
	if err != nil {
		return Tree{}, err
	}
	if rem.local != "" {
		commit, err := openLocal(rem.local, want)
		if err != nil {
			return Tree{}, err
		}
		return readTree(ctx, rem, commit, root)
	}
	return fetchRemote(ctx, rem, want, root, dir)
}

func readTree(ctx context.Context, rem remote, commit *object.Commit, root string) (Tree, error) {
	modules, err := readModules(ctx, commit, root)
	if err != nil {
		return Tree{}, fmt.Errorf("commit %s: %w", commit.Hash, err)
	}
	return Tree{URL: rem.display, Commit: commit.Hash.String(), Modules: modules}, nil
}

func openLocal(path string, want wanted) (*object.Commit, error) {
	repo, err := git.PlainOpen(path)
	if err != nil {
		return nil, err
	}
	if want.hash != plumbing.ZeroHash {
		return resolve(repo, want.hash)
	}
	ref, err := repo.Reference(want.name, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", want.name, err)
	}
	return resolve(repo, ref.Hash())
}

// fetchRemote uses the cache; where that cannot serve it is made anew, once:
// it holds nothing that the remote does not.
func fetchRemote(ctx context.Context, rem remote, want wanted, root, dir string) (Tree, error) {
	sum := sha256.Sum256([]byte(rem.url))
	cache := filepath.Join(dir, "git-"+hex.EncodeToString(sum[:8]))
	tree, err := fetchTree(ctx, cache, rem, want, root)
	var no refusal
	if err == nil || ctx.Err() != nil || errors.Is(err, errQuota) || errors.As(err, &no) {
		return tree, err
	}
	if err := os.RemoveAll(cache); err != nil {
		return Tree{}, fmt.Errorf("remove cache: %w", err)
	}
	return fetchTree(ctx, cache, rem, want, root)
}

func fetchTree(ctx context.Context, cache string, rem remote, want wanted, root string) (Tree, error) {
	commit, err := fetchInto(ctx, cache, rem, want)
	if err != nil {
		return Tree{}, err
	}
	return readTree(ctx, rem, commit, root)
}

func fetchInto(ctx context.Context, cache string, rem remote, want wanted) (*object.Commit, error) {
	repo, err := openCache(cache)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	r := git.NewRemote(repo.Storer, &config.RemoteConfig{Name: "origin", URLs: []string{rem.url}})
	if want.hash == plumbing.ZeroHash {
		spec := config.RefSpec(fmt.Sprintf("+%s:%s", want.name, fetched))
		if err := fetchRefs(ctx, r, 1, spec); err != nil {
			return nil, err
		}
		ref, err := repo.Reference(fetched, true)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", want.name, err)
		}
		return resolve(repo, ref.Hash())
	}
	if c, err := resolve(repo, want.hash); err == nil {
		return c, nil // a commit never changes
	}
	// Not every server gives a commit by its hash; then what has it is fetched.
	if err := fetchRefs(ctx, r, 1, config.RefSpec(fmt.Sprintf("%s:%s", want.hash, fetched))); err == nil {
		return resolve(repo, want.hash)
	}
	if err := fetchRefs(ctx, r, 0, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"); err != nil {
		return nil, err
	}
	return resolve(repo, want.hash)
}

func fetchRefs(ctx context.Context, r *git.Remote, depth int, specs ...config.RefSpec) error {
	for _, s := range specs {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	err := r.FetchContext(ctx, &git.FetchOptions{RefSpecs: specs, Depth: depth, Tags: git.NoTags, Force: true})
	if errors.Is(err, git.NoErrAlreadyUpToDate) {
		return nil
	}
	return err
}

// resolve follows annotated tags to their commit.
func resolve(repo *git.Repository, h plumbing.Hash) (*object.Commit, error) {
	const maxTags = 8
	for range maxTags {
		tag, err := repo.TagObject(h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		h = tag.Target
	}
	commit, err := repo.CommitObject(h)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	return commit, nil
}
