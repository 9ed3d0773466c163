package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"signet.example/internal/fsuser"
	"signet.example/internal/private"
)

const (
	// stageName is the folder in which files are made before they are moved to their place.
	stageName = ".signet-stage"
	// markName is the file by which a folder is known for one that the agent made.
	markName = ".signet"
	// What is made in the stage, one of each at a time. No folder of an entry's has such a name.
	newFile, newFolder, newSet, newLink = ".file", ".folder", ".set", ".link"
	// dirFlags open a folder and follow no link in its place.
	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// Owner is whose the files of a folder are.
type Owner struct {
	UID, GID uint32
	// Group: the group may read them, too.
	Group bool
}

// own reports whether they are this process's own user's.
func (o Owner) own() bool { return o.UID == private.Self() }

func (o Owner) fileMode() fs.FileMode {
	if o.Group {
		return 0o640
	}
	return 0o600
}

// dirMode lets the owner, by its group, look into a folder that is the agent's.
func (o Owner) dirMode() fs.FileMode {
	if o.own() && !o.Group {
		return 0o700
	}
	return 0o750
}

// mark says of a folder who has it.
type mark struct {
	Entry    string `json:"entry"`
	SPIFFEID string `json:"spiffe_id"`
	Owner    Owner  `json:"owner"`
}

// Root is the folder in which the credential folders lie. Its methods are called by one
// goroutine at a time.
type Root struct {
	path  string
	root  *os.Root
	dir   *os.File
	stage *os.File
}

// onMemory refuses a file system that keeps what is written on a disk.
func onMemory(f *os.File, path string) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if kind := uint32(s.Type); kind != unix.TMPFS_MAGIC && kind != unix.RAMFS_MAGIC { //nolint:gosec // magic numbers have 32 bits
		return fmt.Errorf("%s is not on a tmpfs, and no key is written to a disk: name a folder below /run, or mount one: mount -t tmpfs -o size=16m,mode=0711,nosuid,nodev,noexec tmpfs %s", path, path)
	}
	return nil
}

// Open opens the folder, which it makes where it is missing, and takes away what a killed
// agent left half made.
func Open(path string) (_ *Root, err error) {
	if err := os.Mkdir(path, 0o711); err == nil { //nolint:gosec // owners of folders below reach them through it
		err = os.Chmod(path, 0o711) //nolint:gosec // whatever the umask says
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := Check(path); err != nil {
		return nil, err
	}
	r := &Root{path: path}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.root, err = os.OpenRoot(path); err != nil {
		return nil, err
	}
	if r.dir, err = r.root.Open("."); err != nil {
		return nil, err
	}
	if err := onMemory(r.dir, path); err != nil { // of what was opened
		return nil, err
	}
	return r, r.openStage()
}

// Check reports why a folder cannot be the root, without making it.
func Check(path string) error {
	if err := private.Folder(path, private.Self()); err != nil {
		return err
	}
	return checkMemory(path, path)
}

// checkMemory is onMemory of a folder by its path; name is what would lie there.
func checkMemory(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(onMemory(f, name), f.Close())
}

// openStage makes the stage anew: what is in one is of an agent that was killed.
func (r *Root) openStage() error {
	if err := r.root.RemoveAll(stageName); err != nil {
		return err
	}
	if err := r.root.Mkdir(stageName, 0o700); err != nil {
		return err
	}
	var err error
	r.stage, err = r.open(r.dir, stageName)
	return err
}

// Close leaves the folders as they are.
func (r *Root) Close() {
	for _, f := range []*os.File{r.stage, r.dir} {
		if f != nil {
			_ = f.Close() // nothing is buffered
		}
	}
	if r.root != nil {
		_ = r.root.Close() // likewise
	}
}

// open opens a folder of ours, and none that somebody put in its place.
func (r *Root) open(in *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(in.Fd()), name, dirFlags, 0)
	path := filepath.Join(r.path, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var s unix.Stat_t
	if err = unix.Fstat(fd, &s); err == nil && s.Uid != private.Self() {
		err = fmt.Errorf("%s belongs to uid %d and is none that the agent made", path, s.Uid)
	}
	if err == nil {
		err = onMemory(f, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// List is who has each folder that an agent made here.
func (r *Root) List() (map[string]mark, error) {
	entries, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	list := map[string]mark{}
	for _, e := range entries {
		if m, ours := r.marked(e.Name()); ours {
			list[e.Name()] = m
		}
	}
	return list, nil
}

// marked reads the mark of a folder. One that cannot be read is nobody's.
func (r *Root) marked(name string) (m mark, ours bool) {
	if name == stageName {
		return m, false
	}
	dir, err := r.open(r.dir, name)
	if err != nil {
		return m, false
	}
	defer func() { _ = dir.Close() }() // only read
	fd, err := unix.Openat(int(dir.Fd()), markName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return m, false
	}
	f := os.NewFile(uintptr(fd), markName)
	defer func() { _ = f.Close() }()  // only read
	_ = json.NewDecoder(f).Decode(&m) // without a content it is ours, and nobody asks for it
	return m, true
}

// has reports whether a folder is there with its credentials.
func (r *Root) has(name string) bool {
	dir, err := r.open(r.dir, name)
	if err != nil {
		return false
	}
	defer func() { _ = dir.Close() }() // only looked at
	var s unix.Stat_t
	return unix.Fstatat(int(dir.Fd()), bundleName, &s, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Put makes the folder what it is to be: anew, or each file of it that differs.
func (r *Root) Put(name string, m mark, files []file) error {
	before, ours := r.marked(name)
	if ours && before != m {
		if err := r.Remove(name); err != nil {
			return err
		}
		ours = false
	}
	if !ours {
		return r.make(name, m, files)
	}
	dir, err := r.open(r.dir, name)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // its files are written by themselves
	if err := r.fill(dir, m.Owner, files); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(r.path, name), err)
	}
	return nil
}

// make makes a folder whole before it has its name.
func (r *Root) make(name string, m mark, files []file) error {
	if err := r.clear(); err != nil {
		return err
	}
	dir, err := r.mkdir(newFolder)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // its files are written by themselves
	content, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := r.put(dir, markName, content, Owner{UID: private.Self()}); err != nil {
		return err
	}
	if err := r.fill(dir, m.Owner, files); err != nil {
		return err
	}
	if err := letIn(dir, m.Owner); err != nil {
		return err
	}
	err = unix.Renameat2(int(r.stage.Fd()), newFolder, int(r.dir.Fd()), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s is there and is none that the agent made: move it away", filepath.Join(r.path, name))
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: filepath.Join(r.path, name), Err: err}
	}
	return nil
}

// mkdir makes a folder in the stage, which nobody else looks into yet.
func (r *Root) mkdir(name string) (*os.File, error) {
	if err := unix.Mkdirat(int(r.stage.Fd()), name, 0o700); err != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(r.path, stageName, name), Err: err}
	}
	return r.open(r.stage, name)
}

// letIn opens a folder of ours to its files' owner.
func letIn(dir *os.File, o Owner) error {
	if o.dirMode() != 0o700 {
		if err := fsuser.GiveGroup(dir, o.GID); err != nil {
			return err
		}
	}
	return dir.Chmod(o.dirMode())
}

// clear empties the stage.
func (r *Root) clear() error {
	entries, err := fs.ReadDir(r.root.FS(), stageName)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.root.RemoveAll(filepath.Join(stageName, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the files in their order, and takes away what is there besides: whoever gets
// a new key finds the authorities for it there already.
func (r *Root) fill(dir *os.File, o Owner, files []file) error {
	want := map[string]bool{markName: true}
	for _, f := range files {
		want[f.name] = true
		if f.set != nil {
			want[setOne], want[setTwo] = true, true
		}
		if err := f.write(r, dir, o); err != nil {
			return err
		}
	}
	return r.sweep(dir, want)
}

// sweep takes away files that an agent writes and that are not to be there any more. What
// else is in the folder stays.
func (r *Root) sweep(dir *os.File, keep map[string]bool) error {
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep[name] || !written(name) {
			continue
		}
		if err := r.unlink(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// written reports whether a name is one that an agent gives.
func written(name string) bool {
	return name == bundleName || strings.HasSuffix(name, trustSuffix) || name == markName || ofLayout(name)
}

// namesIn lists a folder from its beginning, however often it was read.
func namesIn(dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, 0); err != nil {
		return nil, err
	}
	return dir.Readdirnames(-1)
}

// unlink takes a file away, or a folder of files.
func (r *Root) unlink(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if errors.Is(err, unix.EISDIR) {
		inner, errOpen := r.open(dir, name)
		if errOpen != nil {
			return errOpen
		}
		defer func() { _ = inner.Close() }() // emptied below
		names, errNames := namesIn(inner)
		if errNames != nil {
			return errNames
		}
		for _, n := range names {
			if err := unix.Unlinkat(int(inner.Fd()), n, 0); err != nil {
				return &fs.PathError{Op: "remove", Path: filepath.Join(name, n), Err: err}
			}
		}
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// Remove takes a folder away: the key first, the mark last, so that an agent that is killed
// meanwhile goes on where it was. Files of others in it stay, and with them the folder.
func (r *Root) Remove(name string) error {
	if _, ours := r.marked(name); !ours {
		return nil
	}
	dir, err := r.open(r.dir, name)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only what is in it was changed
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	var left []string
	for _, n := range names {
		switch {
		case !written(n):
			left = append(left, n)
		case n == markName && left != nil: // so that it is looked at again
		default:
			if err := r.unlink(dir, n); err != nil {
				return err
			}
		}
	}
	if left != nil {
		return fmt.Errorf("%s has files that the agent did not make, such as %q: its own are gone, move these away", filepath.Join(r.path, name), left[0])
	}
	if err := unix.Unlinkat(int(r.dir.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: filepath.Join(r.path, name), Err: err}
	}
	return nil
}

// rank is in which order a folder is emptied.
func rank(name string) int {
	switch name {
	case bundleName:
		return 0
	case markName:
		return 2
	}
	return 1
}

// RemoveAll takes all folders away.
func (r *Root) RemoveAll() error {
	list, err := r.List()
	errs := []error{err}
	for name := range list {
		errs = append(errs, r.Remove(name))
	}
	return errors.Join(errs...)
}
