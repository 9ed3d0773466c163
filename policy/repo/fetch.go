package repo

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
	"github.com/go-git/go-git/v5/storage/memory"
)

const fetchTime = 45 * time.Second

// fetched is where the wanted reference of the remote is kept in the cache.
const fetched = plumbing.ReferenceName("refs/signet/source")

// Fetch reads the modules of a source at its branch, tag or commit as they are
// now. A remote repository is fetched into a bare cache below dir, where
// nothing is ever checked out; a local one is read in place, without a copy
// and without a git program. An error has no credentials in it.
func (l Login) Fetch(ctx context.Context, src Source, dir string) (Tree, error) {
	rem, err := l.prepare(src)
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

func fetch(ctx context.Context, rem remote, src Source, dir string) (Tree, error) {
	want, err := parseWanted(src)
	if err != nil {
		return Tree{}, err
	}
	root, err := cleanRoot(src.Path)
	if err != nil {
		return Tree{}, err
	}
	if rem.local != "" {
		repo, commit, err := openLocal(rem.local, want)
		if err != nil {
			return Tree{}, err
		}
		return readTree(ctx, rem, repo, commit, root)
	}
	return fetchRemote(ctx, rem, want, root, dir)
}

func readTree(ctx context.Context, rem remote, repo *git.Repository, commit *object.Commit, root string) (Tree, error) {
	modules, err := readModules(ctx, repo.Storer, commit, root)
	if err != nil {
		return Tree{}, fmt.Errorf("commit %s: %w", commit.Hash, err)
	}
	return Tree{URL: rem.display, Commit: commit.Hash.String(), Modules: modules}, nil
}

func openLocal(path string, want wanted) (*git.Repository, *object.Commit, error) {
	repo, err := git.PlainOpen(path)
	if err != nil {
		return nil, nil, err
	}
	hash, err := localHash(repo, want)
	if err != nil {
		return nil, nil, err
	}
	commit, err := resolve(repo, hash)
	return repo, commit, err
}

func localHash(repo *git.Repository, want wanted) (plumbing.Hash, error) {
	if want.hash != plumbing.ZeroHash {
		return want.hash, nil
	}
	ref, err := repo.Reference(want.name, true)
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("%s: %w", want.name, err)
	}
	return ref.Hash(), nil
}

// Resolve returns what the source's branch or tag is now, without fetching it: a
// commit, or the tag that names one. An error has no credentials in it.
func (l Login) Resolve(ctx context.Context, src Source) (string, error) {
	rem, err := l.prepare(src)
	if err != nil {
		return "", fmt.Errorf("policy source %s: %w", src.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	want, err := parseWanted(src)
	if err != nil {
		return "", fmt.Errorf("policy source %s: %s: %w", src.Name, rem.display, err)
	}
	hash, err := remoteHash(ctx, rem, want)
	if err != nil {
		return "", fmt.Errorf("policy source %s: %s: %w", src.Name, rem.display, rem.scrub(err))
	}
	return hash.String(), nil
}

func remoteHash(ctx context.Context, rem remote, want wanted) (plumbing.Hash, error) {
	if want.hash != plumbing.ZeroHash {
		return want.hash, nil
	}
	if rem.local != "" {
		repo, err := git.PlainOpen(rem.local)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		return localHash(repo, want)
	}
	refs, err := git.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{rem.url}}).
		ListContext(ctx, &git.ListOptions{PeelingOption: git.IgnorePeeled, Auth: rem.auth})
	if err != nil {
		return plumbing.ZeroHash, err
	}
	name := want.name
	for range 2 { // HEAD names another
		for _, ref := range refs {
			if ref.Name() != name {
				continue
			}
			if ref.Type() == plumbing.HashReference {
				return ref.Hash(), nil
			}
			name = ref.Target()
			break
		}
	}
	return plumbing.ZeroHash, fmt.Errorf("%s: %w", want.name, plumbing.ErrReferenceNotFound)
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
	repo, err := openCache(cache)
	if err != nil {
		return Tree{}, fmt.Errorf("cache: %w", err)
	}
	commit, err := fetchInto(ctx, repo, rem, want)
	if err != nil {
		return Tree{}, err
	}
	return readTree(ctx, rem, repo, commit, root)
}

func fetchInto(ctx context.Context, repo *git.Repository, rem remote, want wanted) (*object.Commit, error) {
	r := git.NewRemote(repo.Storer, &config.RemoteConfig{Name: "origin", URLs: []string{rem.url}})
	if want.hash == plumbing.ZeroHash {
		spec := config.RefSpec(fmt.Sprintf("+%s:%s", want.name, fetched))
		if err := fetchRefs(ctx, r, rem, 1, spec); err != nil {
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
	if err := fetchRefs(ctx, r, rem, 1, config.RefSpec(fmt.Sprintf("%s:%s", want.hash, fetched))); err == nil {
		return resolve(repo, want.hash)
	}
	if err := fetchRefs(ctx, r, rem, 0, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"); err != nil {
		return nil, err
	}
	return resolve(repo, want.hash)
}

func fetchRefs(ctx context.Context, r *git.Remote, rem remote, depth int, specs ...config.RefSpec) error {
	for _, s := range specs {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	err := r.FetchContext(ctx, &git.FetchOptions{RefSpecs: specs, Depth: depth, Tags: git.NoTags, Force: true, Auth: rem.auth})
	if errors.Is(err, git.NoErrAlreadyUpToDate) {
		return nil
	}
	return err
}

// resolve follows annotated tags to their commit.
func resolve(repo *git.Repository, h plumbing.Hash) (*object.Commit, error) {
	const maxTags = 8
	for range maxTags {
		if err := checkSize(repo.Storer, h); err != nil {
			return nil, fmt.Errorf("commit %s: %w", h, err)
		}
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
