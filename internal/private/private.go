// Package private checks that what a path names is a user's own: nobody except
// that user and root can change it, put something else in its place or, where
// it is a secret, read it. It is the rule that sshd has for its own files
// (StrictModes), asked of every folder that the path goes through.
//
// The functions are [Guarded], [Folder], [Fixed], [Secret] and [SecretTree], for [Self] or another user. They only look:
// what they refuse is for the operator to mend, and the error has the command. [Ours] comes before them for
// the folders that a service keeps to itself.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a mode may give to group and others.
const (
	othersAll   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
	groupWrite  fs.FileMode = 0o020
)

// mostLinks is how many symbolic links one path may lead through, as for the kernel.
const mostLinks = 40

// Guarded returns an error if anybody except the user own and root could change
// what path names, or replace it by changing a folder or a link on its way.
func Guarded(path string, own uint32) error { return check(path, own, own, othersWrite) }

// Folder is Guarded for a folder: anything else in its place is refused too.
func Folder(path string, own uint32) error { return folder(path, own, own) }

// Fixed is Folder for one that its user cannot move away either: all that lies
// above it is root's alone. What a path leads to stays so, whatever own does.
func Fixed(path string, own uint32) error { return folder(path, own, 0) }

func folder(path string, own, above uint32) error {
	if err := check(path, own, above, othersWrite); err != nil {
		return err
	}
	info, err := os.Stat(path) // nobody else can change a link by now
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	return err
}

// Secret is Guarded for what nobody else may read or look into either. Its own
// mode gives nothing to any group: a secret is never made with a umask of 002.
func Secret(path string, own uint32) error { return check(path, own, own, othersAll) }

// SecretTree is Secret for a folder and everything in it.
func SecretTree(dir string, own uint32) error {
	if err := Secret(dir, own); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(dir) // nobody else can change a link by now
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = Secret(path, own)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile: who writes a file anew has another one for a moment
		}
		return err
	})
}

func check(path string, own, above uint32, deny fs.FileMode) error {
	path, err := Absolute(path)
	if err != nil {
		return err
	}
	way, err := walk(path)
	if err != nil {
		return err
	}
	for _, s := range slices.Backward(way) { // what was asked for, then what it hangs on
		if s.last {
			err = s.check(own, above, deny)
		} else {
			err = s.check(above, above, othersWrite)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Absolute is filepath.Abs, or an error where the kernel takes the path for another
// one: it goes up from where a link leads to, a program that joins paths from where
// the link lies.
func Absolute(path string) (string, error) {
	clean, err := filepath.Abs(path)
	if err != nil || !slices.Contains(strings.Split(path, "/"), "..") {
		return clean, err
	}
	given, err := os.Stat(path)
	cleaned, errClean := os.Stat(clean)
	if (err == nil) != (errClean == nil) || err == nil && !os.SameFile(given, cleaned) {
		return "", fmt.Errorf("%s goes up from where a symbolic link leads to, which is not %s: name it without \"..\"", path, clean)
	}
	return clean, nil
}

// step is a folder, link or file on the way to what a path names.
type step struct {
	path  string // without links
	info  fs.FileInfo
	up    *step    // the folder that it lies in
	found []uint32 // the owners of what was looked up in it
	last  bool     // it is what the path names, or a link in its place
}

func (s *step) owner() *syscall.Stat_t { return s.info.Sys().(*syscall.Stat_t) } //nolint:forcetypeassert // Linux

// walk goes the kernel's way, from the root on: each link is read where it lies, and
// ".." leads up from the folder that was reached.
func walk(path string) ([]*step, error) {
	info, err := os.Lstat("/")
	if err != nil {
		return nil, err
	}
	at := &step{path: "/", info: info}
	at.up = at
	way, links := []*step{at}, mostLinks
	for rest := names(path); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if !at.info.IsDir() {
			return nil, &fs.PathError{Op: "open", Path: at.path, Err: unix.ENOTDIR}
		}
		if name == ".." {
			at = at.up
			continue
		}
		next := &step{path: filepath.Join(at.path, name), up: at, last: len(rest) == 0}
		if next.info, err = os.Lstat(next.path); err != nil {
			return nil, err
		}
		way, at.found = append(way, next), append(at.found, next.owner().Uid)
		if next.info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links--; links < 0 {
			return nil, fmt.Errorf("%s: %w", path, unix.ELOOP)
		}
		to, err := os.Readlink(next.path)
		if err != nil {
			return nil, err
		}
		if filepath.IsAbs(to) {
			at = way[0]
		}
		rest = append(names(to), rest...)
	}
	at.last = true
	return way, nil
}

// names are those in a path, without what leads nowhere.
func names(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// check looks at one step, which may be own's; what lies in it may be above's. In a
// folder with the sticky bit nobody renames what is another's.
func (s *step) check(own, above uint32, deny fs.FileMode) error {
	owner := s.owner()
	if owner.Uid != 0 && owner.Uid != own {
		who := "root"
		if own != 0 {
			who = fmt.Sprintf("root or uid %d", own)
		}
		return fmt.Errorf("%s belongs to uid %d, who could change or replace it; the owner must be %s: chown %d %s, or choose another folder",
			s.path, owner.Uid, who, own, s.path)
	}
	if s.info.Mode().Type() == fs.ModeSymlink {
		return nil // it counts as what it leads to; that it does so depends on its folder
	}
	open := s.info.Mode().Perm() & deny
	sticky := !s.last && s.info.Mode()&fs.ModeSticky != 0 &&
		!slices.ContainsFunc(s.found, func(uid uint32) bool { return uid != 0 && uid != above })
	if open == 0 || sticky || deny != othersAll && alone(s.path, owner.Gid, own, open) {
		return nil
	}
	return fmt.Errorf("%s has mode %#o, which lets others in: chmod %s %s", s.path, s.info.Mode().Perm(), without(open), s.path)
}

// alone reports whether the open bits of a mode let in nobody except own and root:
// they are the group's, and the group has no other member. It is how systems
// that give each user a group of its own, and a umask of 002, mean it.
func alone(path string, gid, own uint32, open fs.FileMode) bool {
	if open&^groupWrite != 0 || !groupOf(gid, own) {
		return false
	}
	// Where there is an access control list, the group's bits are its mask and
	// say nothing of whom it names.
	_, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP)
}

// without is chmod's word for taking bits away.
func without(open fs.FileMode) string {
	who, what := "", ""
	for _, w := range []struct {
		name  string
		shift int
	}{{"g", 3}, {"o", 0}} {
		if open>>w.shift&0o7 != 0 {
			who += w.name
		}
	}
	for i, r := range "xwr" {
		if open&(0o011<<i) != 0 {
			what = string(r) + what
		}
	}
	return who + "-" + what
}

// Self is this process's user, as own of the others.
func Self() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits

// Writable returns why this process, as its effective user, could not make files in a
// folder. access(2) answers for the real user.
func Writable(dir string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s cannot be written: %w", dir, err)
	}
	return nil
}

// Creatable returns why this process could not make a folder that is missing: in the nearest
// one above it that exists.
func Creatable(path string) error {
	for {
		path = filepath.Dir(path)
		err := Writable(path)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			if err != nil {
				err = fmt.Errorf("it is missing and cannot be made: %w", err)
			}
			return err
		}
	}
}
