package child

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Expendable has the kernel end this process before others where memory is short:
// score is 1 to 1000, and only raised, which needs no privilege. It comes before
// Confine, which gives /proc/self to root.
func Expendable(score int) error {
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if now >= score {
		return nil
	}
	return os.WriteFile(file, []byte(strconv.Itoa(score)), 0)
}

// KeepSecret keeps this process's memory from others of its user: no debugger of
// theirs reads it, and it leaves no core file. It comes before a key or a password is
// read, and holds until a program is executed. /proc/self is root's from then on.
func KeepSecret() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep keys out of core dumps: PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// Confine is what a program of ours that was started as a child does before
// anything else, or after Expendable. It drops capabilities that its file may have given it, has the
// kernel end it with its parent, and keeps others of its user from reading its
// memory. A parent that has died before is noticed by the end of what the child
// reads from it.
func Confine() error {
	if err := KeepSecret(); err != nil {
		return err
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
