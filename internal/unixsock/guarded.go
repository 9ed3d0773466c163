package unixsock

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"signet.example/internal/private"
)

func ownerOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid } //nolint:forcetypeassert // Linux

// TrustedListener returns the check of who answers on the socket at path: root, our
// own user, or the owner of the socket's folder where nobody else can put a socket
// into it. Whoever else answers there is an impostor.
func TrustedListener(path string) func(Peer) error {
	return func(p Peer) error {
		if p.UID == 0 || p.UID == own() {
			return nil
		}
		err := keptBy(path, p.UID)
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s is answered by uid %d, whom nothing shows to be the one it belongs to (%w): "+
			"run this as the user of the process that should listen there, or keep the socket in a folder of that user", path, p.UID, err)
	}
}

// keptBy reports why a path does not lie in a folder that uid, and nobody else except
// root, decides on.
func keptBy(path string, uid uint32) error {
	path, err := private.Absolute(path)
	if err != nil {
		return err
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	if ownerOf(info) != uid {
		return fmt.Errorf("%s belongs to uid %d", folder, ownerOf(info))
	}
	return private.Folder(folder, uid)
}

func own() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits
