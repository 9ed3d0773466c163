// Package fsuser makes files of other users without the capability to give files away
// (CAP_CHOWN): for a moment one thread acts on files, and on nothing else, as their user or
// group (setfsuid(2)), which CAP_SETUID and CAP_SETGID allow. Root needs nothing.
//
// The functions are [GiveGroup] and [Create]. What is looked up and allowed meanwhile is
// what that user may: the capabilities that let root pass are off on the thread.
//
// # Concurrency
//
// The functions can be called from any goroutine. A thread that could not be made the
// process's own again ends with its goroutine, and no other code runs on it.
package fsuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// GiveGroup is chgrp of a file or folder of ours to a group that this process may not be in.
func GiveGroup(f *os.File, gid uint32) error {
	return as(-1, int(gid), func() error { return f.Chown(-1, int(gid)) })
}

// Create makes a file in dir that belongs to the user and group, with exactly this mode, and
// opens it for writing. Nothing may be there by that name. The user must be able to make
// files in dir.
func Create(dir *os.File, name string, mode fs.FileMode, uid, gid uint32) (*os.File, error) {
	var f *os.File
	err := as(int(uid), int(gid), func() error {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return &fs.PathError{Op: "create", Path: name, Err: err}
		}
		f = os.NewFile(uintptr(fd), name)
		return f.Chmod(mode) // whatever the umask took away
	})
	if err != nil && f != nil {
		err = errors.Join(err, f.Close())
		f = nil
	}
	return f, err
}

// as calls f on a thread that acts on files as the user and the group; -1 leaves one of
// them as it is. What f starts must not outlive it.
func as(uid, gid int, f func() error) error {
	done := make(chan error)
	go func() { // ends with f
		runtime.LockOSThread()
		back, err := enter(uid, gid)
		if err == nil {
			err = f()
		}
		if errBack := back(); errBack != nil { // the thread stays locked, and ends here
			done <- errors.Join(err, errBack)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// enter changes the thread, the group first: without the user's capability the group could
// not be changed any more. back undoes what was done, also after an error.
func enter(uid, gid int) (back func() error, err error) {
	var undo []func() error
	back = func() error {
		var errs []error
		for i := range undo {
			errs = append(errs, undo[len(undo)-1-i]())
		}
		return errors.Join(errs...)
	}
	if gid >= 0 {
		if err := setID(unix.SetfsgidRetGid, gid, os.Getegid()); err != nil {
			return back, fmt.Errorf("act on files as group %d (CAP_SETGID): %w", gid, err)
		}
		undo = append(undo, func() error { return setID(unix.SetfsgidRetGid, os.Getegid(), gid) })
	}
	if uid >= 0 {
		if err := setID(unix.SetfsuidRetUid, uid, os.Geteuid()); err != nil {
			return back, fmt.Errorf("act on files as uid %d (CAP_SETUID): %w", uid, err)
		}
		undo = append(undo, func() error { return setID(unix.SetfsuidRetUid, os.Geteuid(), uid) })
	}
	return back, nil
}

// setID changes one id of the thread. The kernel reports no failure: it answers with what
// the id was before, and a second call shows whether the first one counted.
func setID(set func(int) (int, error), to, from int) error {
	if to == from {
		return nil
	}
	if _, err := set(to); err != nil {
		return err
	}
	if now, err := set(to); err != nil || now != to {
		return errors.Join(unix.EPERM, err)
	}
	return nil
}
