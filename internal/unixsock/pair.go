package unixsock

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Pair returns the two ends of a new socket, one as a connection of ours and the
// other as a file for a child. kind is unix.SOCK_STREAM or unix.SOCK_SEQPACKET.
func Pair(kind int, name string) (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: socketpair: %w", name, err)
	}
	theirs = os.NewFile(uintptr(fds[1]), name)
	if ours, err = FromFile(os.NewFile(uintptr(fds[0]), name)); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// FromFile makes a connection of a socket's file and closes the file.
func FromFile(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil { // c has its own descriptor
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is a %T", f.Name(), c), c.Close())
	}
	return u, nil
}
