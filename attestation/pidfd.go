package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pidfsMagic is the type of the file system that pidfds live on since Linux
// 6.9. There each process has an inode number of its own, never used again.
const pidfsMagic = 0x50494446

// alive returns ErrGone once the process of pidfd has exited, reaped or not:
// pidfd_open(2), a pidfd becomes readable when its process terminates.
// Signal 0 would not do, since a zombie takes it and it needs permission.
func alive(pidfd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}} //nolint:gosec // a descriptor fits
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll pidfd: %w", err)
		case n != 0:
			return ErrGone
		}
		return nil
	}
}

// pidOf returns the process id as this PID namespace sees it: 0 when it is not
// visible here (ErrInvisible), -1 when it has been reaped (ErrGone).
func pidOf(pidfd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, fmt.Errorf("pidfd: %w", err)
	}
	for line := range bytes.Lines(info) {
		rest, ok := bytes.CutPrefix(line, []byte("Pid:"))
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(string(bytes.TrimSpace(rest)))
		switch {
		case err != nil:
			return 0, fmt.Errorf("pidfd: %w", err)
		case pid == 0:
			return 0, ErrInvisible
		case pid < 0:
			return 0, ErrGone
		}
		return pid, nil
	}
	return 0, errors.New("pidfd: the kernel tells no process id")
}

// SameProcess reports whether two pidfds stand for one process. It compares
// their inodes on pidfs; before Linux 6.9, where all pidfds share one inode,
// their process ids while both live, which then cannot be two processes'.
func SameProcess(a, b int) (bool, error) {
	sa, onPidfs, err := statPidfd(a)
	if err != nil {
		return false, err
	}
	sb, onPidfsToo, err := statPidfd(b)
	if err != nil {
		return false, err
	}
	if onPidfs && onPidfsToo {
		return sa.Dev == sb.Dev && sa.Ino == sb.Ino, nil
	}
	return sameLivePID(a, b)
}

func statPidfd(fd int) (st unix.Stat_t, onPidfs bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return st, false, fmt.Errorf("statfs pidfd: %w", err)
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return st, false, fmt.Errorf("stat pidfd: %w", err)
	}
	return st, fs.Type == pidfsMagic && !legacyKernel, nil
}

func sameLivePID(a, b int) (bool, error) {
	pa, err := pidOf(a)
	if err != nil {
		return false, err
	}
	pb, err := pidOf(b)
	if err != nil {
		return false, err
	}
	if err := errors.Join(alive(a), alive(b)); err != nil {
		return false, err
	}
	return pa == pb, nil
}
