package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	maxFetchBytes = 256 << 20 // written by one fetch
	maxCacheBytes = 512 << 20 // kept between fetches
	objectCache   = 32 << 20
)

// errQuota: the remote sends more than a repository of policies has any need of.
var errQuota = fmt.Errorf("the repository is too large: more than %d MiB", maxFetchBytes>>20)

// openCache opens or makes a bare repository. One that grew too large, since
// old packs are never collected, or that cannot be opened is made anew.
func openCache(dir string) (*git.Repository, error) {
	if dirSize(dir) > maxCacheBytes {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	quota := &quotaFS{Filesystem: osfs.New(dir), left: new(atomic.Int64)}
	quota.left.Store(maxFetchBytes)
	store := filesystem.NewStorage(quota, cache.NewObjectLRU(objectCache))
	repo, err := git.Open(store, nil)
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return git.Init(store, nil)
	}
	return repo, err
}

func dirSize(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what cannot be read is not counted
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// quotaFS fails writes past a limit, so that a remote cannot fill the disk.
type quotaFS struct {
	billy.Filesystem
	left *atomic.Int64
}

// Create implements billy.Basic.
func (q *quotaFS) Create(name string) (billy.File, error) { return q.wrap(q.Filesystem.Create(name)) }

// OpenFile implements billy.Basic.
func (q *quotaFS) OpenFile(name string, flag int, perm fs.FileMode) (billy.File, error) {
	return q.wrap(q.Filesystem.OpenFile(name, flag, perm))
}

// TempFile implements billy.TempFile.
func (q *quotaFS) TempFile(dir, prefix string) (billy.File, error) {
	return q.wrap(q.Filesystem.TempFile(dir, prefix))
}

func (q *quotaFS) wrap(f billy.File, err error) (billy.File, error) {
	if err != nil {
		return nil, err
	}
	return &quotaFile{File: f, left: q.left}, nil
}

type quotaFile struct {
	billy.File
	left *atomic.Int64
}

// Write implements io.Writer.
func (q *quotaFile) Write(p []byte) (int, error) {
	if q.left.Add(-int64(len(p))) < 0 {
		return 0, errQuota
	}
	return q.File.Write(p)
}
