package envoy

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"signet.example/internal/child"
)

// adminMode is the mode of a proxy's admin socket. Of another user's socket the
// agent has only what others have; who these are is the folder's to say.
func adminMode(u *child.User) uint32 {
	if u.Other() {
		return 0o666
	}
	return 0o600
}

// adminFolder makes the folder in which the proxy makes its admin socket and
// nobody except it and the agent can enter. For a proxy of another user that is by its
// primary group.
func adminFolder(dir string, u *child.User) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !u.Other() {
		return nil
	}
	if err := giveGroup(dir, int(u.GID)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o770) //nolint:gosec // for the proxy's own group
}

// LetThrough has a proxy's user, by its primary group, pass through a folder of ours that is
// closed to everybody else.
func LetThrough(dir string, u *child.User) error {
	if err := giveGroup(dir, int(u.GID)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710) //nolint:gosec // for the proxy's own group
}

// giveGroup is chgrp by an owner who is not in the group: where there is no
// CAP_CHOWN, CAP_SETGID lets one thread be in it for a moment, for files alone.
func giveGroup(path string, gid int) error {
	runtime.LockOSThread()
	own, err := unix.SetfsgidRetGid(gid)
	if err != nil {
		return fmt.Errorf("setfsgid: %w", err) // the thread stays locked and ends with its goroutine
	}
	err = os.Chown(path, -1, gid)
	if _, back := unix.SetfsgidRetGid(own); back != nil {
		return errors.Join(err, fmt.Errorf("setfsgid: %w", back)) // likewise
	}
	runtime.UnlockOSThread()
	return err
}
