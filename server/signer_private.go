package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A signer with a user of its own is worth what keeps the server's user out. So
// it holds its files to the rule that sshd has for its own (StrictModes), and
// does not start where it is broken.

// private resolves the paths in a configuration and tells why the server's user,
// or anybody but our own and root, could get at what they name.
func (c SignerConfig) private(own, server uint32) (SignerConfig, error) {
	switch server {
	case 0:
		return c, errors.New("the server's user is root, who reads every file here: run the server as another")
	case own:
		return c, fmt.Errorf("the signer runs as uid %d, and so does the server: whoever gets into the server could read the keys; give the signer a user of its own", own)
	}
	// What was resolved and found unwritable for others stays what it is; a link
	// in the path could lead elsewhere by the time it is opened.
	folder := filepath.Dir(c.Listen)
	for _, p := range []*string{&c.DataDir, &c.PasswordFile, &folder} {
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return c, err
		}
		if *p, err = filepath.EvalSymlinks(*p); err != nil {
			return c, err
		}
	}
	c.Listen = filepath.Join(folder, filepath.Base(c.Listen))
	if err := errors.Join(guarded(folder, own, othersWrite), guarded(c.PasswordFile, own, othersAll)); err != nil {
		return c, err
	}
	return c, filepath.WalkDir(dataDir(c.DataDir).ca(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return guarded(path, own, othersAll)
	})
}

// What a mode may give to group and others. An access control list shows in the
// group's bits.
const (
	othersAll   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
)

// guarded tells whether path, without the permissions in deny, and every folder
// above it belong to own or root and can be changed by nobody else. In a sticky
// folder nobody renames what is another's.
func guarded(path string, own uint32, deny fs.FileMode) error {
	for sticky := fs.FileMode(0); ; path, deny, sticky = filepath.Dir(path), othersWrite, fs.ModeSticky {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t).Uid //nolint:forcetypeassert // Linux
		switch mode := info.Mode(); {
		case owner != 0 && owner != own:
			return fmt.Errorf("%s belongs to uid %d and must to the signer's, %d: chown it", path, owner, own)
		case mode.Perm()&deny != 0 && mode&sticky == 0:
			return fmt.Errorf("%s has mode %#o, which lets others in: take %#o away", path, mode.Perm(), mode.Perm()&deny)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}
