package child

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Confine is what a program of ours that was started as a child does before
// anything else. It drops capabilities that its file may have given it, has the
// kernel end it with its parent, and keeps others of its user from reading its
// memory. A parent that has died before is noticed by the end of what the child
// reads from it.
func Confine() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	now, err := capabilities()
	if err != nil {
		return err
	}
	if now != (sets{}) {
		return again()
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_PDEATHSIG: %w", err)
	}
	return nil
}

// again executes the same program without capabilities. Each thread has its own,
// and there are several by now; an exec leaves the one that has given them up. It
// gains none by its file, since no_new_privs lets it have at most what it had.
func again() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_CAP_AMBIENT_CLEAR_ALL: %w", err)
	}
	if err := (sets{}).apply(); err != nil {
		return err
	}
	return fmt.Errorf("exec without capabilities: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ())) //nolint:gosec // this program
}
