package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// What a mode may give to group and others. An access control list shows in the
// group's bits.
const (
	OthersAll   fs.FileMode = 0o077
	OthersWrite fs.FileMode = 0o022
)

// Guarded reports why anybody but own and root could change path: path, without
// the permissions in deny, and every folder above it must belong to one of the two
// and be writable by nobody else. In a sticky folder nobody renames what is
// another's. It is the rule that sshd has for its own files (StrictModes).
//
// path must be absolute and without links: what was resolved and found guarded
// stays what it is.
func Guarded(path string, own uint32, deny fs.FileMode) error {
	for sticky := fs.FileMode(0); ; path, deny, sticky = filepath.Dir(path), OthersWrite, fs.ModeSticky {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		owner := ownerOf(info)
		switch mode := info.Mode(); {
		case owner != 0 && owner != own:
			return fmt.Errorf("%s belongs to uid %d and must to uid %d: chown it", path, owner, own)
		case mode.Perm()&deny != 0 && mode&sticky == 0:
			return fmt.Errorf("%s has mode %#o, which lets others in: take %#o away", path, mode.Perm(), mode.Perm()&deny)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

func ownerOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid } //nolint:forcetypeassert // Linux

// TrustedListener returns the check of who answers on the socket at path: root, our
// own user, or the owner of the socket's folder where nobody else can put a socket
// into it. Whoever else answers there is an impostor.
func TrustedListener(path string) func(Peer) error {
	return func(p Peer) error {
		if p.UID == 0 || p.UID == own() {
			return nil
		}
		err := keptBy(filepath.Dir(path), p.UID)
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s is answered by uid %d, whom nothing shows to be the one it belongs to (%w): "+
			"run this as the user of the process that should listen there, or keep the socket in a folder of that user", path, p.UID, err)
	}
}

// keptBy reports why a folder is not one that uid, and nobody else but root, decides on.
func keptBy(folder string, uid uint32) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	switch {
	case ownerOf(info) != uid:
		return fmt.Errorf("%s belongs to uid %d", folder, ownerOf(info))
	case info.Mode().Perm()&OthersWrite != 0:
		return errors.New(folder + " can be written by others")
	}
	return Guarded(folder, uid, OthersWrite)
}

func own() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits
