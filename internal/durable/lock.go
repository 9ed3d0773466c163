package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned by Lock when another process has the file.
var ErrLocked = errors.New("another process has locked it")

// Lock takes an open file or folder for this process until it is closed, or returns
// ErrLocked at once.
//
// What excludes others is flock(2), as in every version before; it can only be asked
// about by taking it. So whoever has it sets a lock of the other kind beside it, which
// excludes nobody and which Locked can ask about.
func Lock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			shown := unix.Flock_t{Type: unix.F_RDLCK}             // a folder can have no other
			_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &shown) // for who asks; the file is had without it
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("%s: %w", f.Name(), ErrLocked)
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("%s: lock: %w", f.Name(), err)
		}
	}
}

// Locked reports whether a process that runs has locked what path names. It takes
// nothing: nobody's Lock fails for it.
func Locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only asked
	asked := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &asked) == nil && asked.Type != unix.F_UNLCK
}
