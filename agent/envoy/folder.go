package envoy

import (
	"os"
	"path/filepath"

	"signet.example/internal/child"
	"signet.example/internal/fsuser"
)

// adminMode is the mode of a proxy's admin socket. Of another user's socket the
// agent has only what others have; who these are is the folder's to say.
func adminMode(u *child.User) uint32 {
	if u.Other() {
		return 0o666
	}
	return 0o600
}

// MakeFolder makes the folder of the proxies, which holds nothing but folders, below that of our
// sockets, base, whatever the umask says. No link leads out of there: a task's is in a volume, in
// which root of another container can make one.
func MakeFolder(base, name string) error {
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written
	if err := root.MkdirAll(name, 0o711); err != nil {
		return err
	}
	return root.Chmod(name, 0o711)
}

// adminFolder makes the folder in which the proxy makes its admin socket and
// nobody except it and the agent can enter. For a proxy of another user that is by its
// primary group. It lies below that of our sockets, as that of MakeFolder does.
func adminFolder(base, dir string, u *child.User) error {
	below, err := filepath.Rel(base, dir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing was written
	if err := root.MkdirAll(below, 0o700); err != nil {
		return err
	}
	if !u.Other() {
		return nil
	}
	f, err := root.Open(below)
	if err != nil {
		return err
	}
	return letIn(f, u, 0o770)
}

// LetThrough has a proxy's user, by its primary group, pass through a folder of ours that is
// closed to everybody else.
func LetThrough(dir string, u *child.User) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return letIn(f, u, 0o710)
}

// letIn gives a folder to a user's primary group, with a mode, and closes it.
func letIn(f *os.File, u *child.User, mode os.FileMode) error {
	defer func() { _ = f.Close() }() // nothing was written
	if err := fsuser.GiveGroup(f, u.GID); err != nil {
		return err
	}
	return f.Chmod(mode)
}
