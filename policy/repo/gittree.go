package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Limits of what is walked, beside those of the modules.
const (
	maxEntries = 2000
	maxDepth   = 16
	// maxObject is the size of a commit, a tag or a folder's list; and of a module.
	maxObject = maxModuleSize
)

// dataFiles are what OPA would load as data: a policy without them says something else.
var dataFiles = []string{"data.json", "data.yaml", "data.yml"}

// refusal is an error that reading again cannot mend: the tree is whole and
// holds what it must not.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// walk reads the modules of a commit's tree. It reads objects and never writes
// a file, so names in the tree cannot lead anywhere.
type walk struct {
	objects storer.EncodedObjectStorer
	entries int
	total   int
	modules []Module
}

// readModules returns all *.rego below root. Symbolic links, submodules and
// data files are refused there and not left out: a policy of which a part is
// missing says something else.
func readModules(ctx context.Context, objects storer.EncodedObjectStorer, commit *object.Commit, root string) ([]Module, error) {
	w := &walk{objects: objects}
	if err := checkSize(objects, commit.TreeHash); err != nil {
		return nil, err
	}
	tree, err := commit.Tree()
	if err != nil {
		return nil, err
	}
	if root != "" {
		if tree, err = w.subtree(tree, root); err != nil {
			return nil, fmt.Errorf("path %s: %w", root, err)
		}
	}
	if err := w.tree(ctx, tree, root, 0); err != nil {
		return nil, err
	}
	if len(w.modules) == 0 {
		return nil, refuse("no *.rego file below %q", "/"+root)
	}
	slices.SortFunc(w.modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return w.modules, nil
}

// checkSize looks at the size that an object has in the repository before it is
// inflated: a kilobyte can stand for gigabytes.
func checkSize(objects storer.EncodedObjectStorer, h plumbing.Hash) error {
	size, err := objects.EncodedObjectSize(h)
	if err != nil {
		return err
	}
	if size > maxObject {
		return refuse("object %s has %d bytes: at most %d", h, size, maxObject)
	}
	return nil
}

// subtree goes down by folders only: a link on the way is not followed.
func (w *walk) subtree(t *object.Tree, root string) (*object.Tree, error) {
	for part := range strings.SplitSeq(root, "/") {
		e, err := t.FindEntry(part)
		if err != nil {
			return nil, err
		}
		if e.Mode != filemode.Dir {
			return nil, refuse("%s is not a folder", part)
		}
		if err := checkSize(w.objects, e.Hash); err != nil {
			return nil, err
		}
		if t, err = t.Tree(part); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (w *walk) tree(ctx context.Context, t *object.Tree, dir string, depth int) error {
	if depth > maxDepth {
		return refuse("%.200q: more than %d folders deep", dir, maxDepth)
	}
	for i := range t.Entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.entries++; w.entries > maxEntries {
			return refuse("more than %d files and folders", maxEntries)
		}
		if err := w.entry(ctx, t, &t.Entries[i], dir, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, t *object.Tree, e *object.TreeEntry, dir string, depth int) error {
	if err := checkEntryName(e.Name); err != nil {
		return refuse("%.200q: %w", path.Join(dir, e.Name), err)
	}
	full := path.Join(dir, e.Name)
	switch e.Mode {
	case filemode.Dir:
		if err := checkSize(w.objects, e.Hash); err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		sub, err := t.Tree(e.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		return w.tree(ctx, sub, full, depth+1)
	case filemode.Regular, filemode.Executable, filemode.Deprecated:
		return w.file(t, e, full)
	case filemode.Symlink:
		return refuse("%s: symbolic links are refused", full)
	case filemode.Submodule:
		return refuse("%s: submodules are refused", full)
	}
	return refuse("%s: mode %s is refused", full, e.Mode)
}

// checkEntryName refuses names that git itself would not write, or that would
// read as something else in a log line.
func checkEntryName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\:") || strings.EqualFold(name, ".git"):
		return errors.New("a name that leads elsewhere")
	case len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, unprintable):
		return errors.New("a name that cannot be shown")
	}
	return nil
}

func (w *walk) file(t *object.Tree, e *object.TreeEntry, full string) error {
	if slices.Contains(dataFiles, e.Name) {
		return refuse("%s: data files are not loaded; write the values in Rego", full)
	}
	if !strings.HasSuffix(e.Name, ".rego") {
		return nil
	}
	if err := checkSize(w.objects, e.Hash); err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	file, err := t.TreeEntryFile(e)
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	if w.total += int(file.Size); w.total > maxTotalSize {
		return refuse("%s: more than %d bytes of Rego", full, maxTotalSize)
	}
	text, err := readBlob(file)
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	w.modules = append(w.modules, Module{Path: full, Rego: text})
	return nil
}

func readBlob(file *object.File) (string, error) {
	r, err := file.Reader()
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(r, maxModuleSize+1))
	if err != nil {
		return "", err
	}
	if int64(len(b)) != file.Size {
		return "", errors.New("its size is not what git says")
	}
	if !utf8.Valid(b) {
		return "", refuse("not UTF-8")
	}
	return string(b), nil
}
