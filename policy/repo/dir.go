package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// ReadDir reads the modules of a folder by the rules that hold for a commit's
// tree, so that what is told of it before a push is what sync says after it.
// Modules have the folder's name before their path. Folders whose name begins
// with '.' are left out: git's own is one.
func ReadDir(ctx context.Context, dir string) (Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Tree{}, err
	}
	defer func() { _ = root.Close() }() // it was only read
	w := &dirWalk{root: root, dir: filepath.ToSlash(dir)}
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		return w.entry(name, e)
	})
	if err != nil {
		return Tree{}, err
	}
	if len(w.modules) == 0 {
		return Tree{}, fmt.Errorf("no *.rego file below %s", dir)
	}
	slices.SortFunc(w.modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return Tree{URL: dir, Modules: w.modules}, nil
}

type dirWalk struct {
	root    *os.Root
	dir     string
	entries int
	total   int64
	modules []Module
}

func (w *dirWalk) entry(name string, e fs.DirEntry) error {
	full := path.Join(w.dir, name)
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("%s: more than %d files and folders", w.dir, maxEntries)
	}
	switch {
	case e.IsDir() && strings.HasPrefix(e.Name(), "."):
		return fs.SkipDir
	case e.IsDir():
		return nil
	case e.Type()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s: symbolic links are refused", full)
	case slices.Contains(dataFiles, e.Name()):
		return fmt.Errorf("%s: data files are not loaded; write the values in Rego", full)
	case !strings.HasSuffix(e.Name(), ".rego"):
		return nil
	}
	text, err := w.read(name)
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	w.modules = append(w.modules, Module{Path: full, Rego: text})
	return nil
}

func (w *dirWalk) read(name string) (string, error) {
	f, err := w.root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxModuleSize+1))
	if err != nil {
		return "", err
	}
	switch w.total += int64(len(b)); {
	case len(b) > maxModuleSize:
		return "", fmt.Errorf("more than %d bytes", maxModuleSize)
	case w.total > maxTotalSize:
		return "", fmt.Errorf("more than %d bytes of Rego", maxTotalSize)
	case !utf8.Valid(b):
		return "", errors.New("not UTF-8")
	}
	return string(b), nil
}
