// Package private checks that what a path names is a user's own: nobody except
// that user and root can change it, put something else in its place or, where
// it is a secret, read it. It is the rule that sshd has for its own files
// (StrictModes), asked of every folder that the path goes through.
//
// The functions are [Guarded], [Folder], [Fixed], [Secret] and [SecretTree], for [Self] or another user. They only look:
// what they refuse is for the operator to mend, and the error has the command.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
		if err != nil {
			return err
		}
		return Secret(path, own)
	})
}

func check(path string, own, above uint32, deny fs.FileMode) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	c := checker{above: above, links: mostLinks}
	return c.check(path, own, deny, 0)
}

type checker struct {
	above uint32 // who, beside root, may have what lies above
	links int    // how many more may be followed
}

// check looks at path and at every folder above it. A link counts as what it
// leads to; that it does so depends on the folders it lies in. In a folder with
// the sticky bit nobody renames what is another's, so sticky is that bit for what
// lies above what is root's or of the user above.
func (c *checker) check(path string, own uint32, deny, sticky fs.FileMode) error {
	for ; ; path, own, deny = filepath.Dir(path), c.above, othersWrite {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // Linux
		if owner.Uid != 0 && owner.Uid != own {
			who := "root"
			if own != 0 {
				who = fmt.Sprintf("root or uid %d", own)
			}
			return fmt.Errorf("%s belongs to uid %d, who could change or replace it; the owner must be %s: chown %d %s, or choose another folder",
				path, owner.Uid, who, own, path)
		}
		if info.Mode().Type() == fs.ModeSymlink {
			if err := c.follow(path, own, deny, sticky); err != nil {
				return err
			}
		} else if open := info.Mode().Perm() & deny; open != 0 && info.Mode()&sticky == 0 && (deny == othersAll || !alone(path, owner.Gid, own, open)) {
			return fmt.Errorf("%s has mode %#o, which lets others in: chmod %s %s", path, info.Mode().Perm(), without(open), path)
		}
		if path == filepath.Dir(path) {
			return nil
		}
		sticky = 0
		if owner.Uid == 0 || owner.Uid == c.above {
			sticky = fs.ModeSticky
		}
	}
}

// follow checks what a link leads to.
func (c *checker) follow(link string, own uint32, deny, sticky fs.FileMode) error {
	if c.links--; c.links < 0 {
		return fmt.Errorf("%s: %w", link, unix.ELOOP)
	}
	to, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(link), to)
	}
	return c.check(to, own, deny, sticky)
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
