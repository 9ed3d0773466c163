package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Try returns why Listen would fail, and leaves nothing behind.
func Try(ctx context.Context, path string) error {
	l, err := Listen(ctx, path, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return l.Close() // its file is gone with it
}

// Listen makes a Unix socket whose file has this mode from the first instant. A
// socket that a dead process left is replaced; anything else under that name is
// left alone, and refused.
func Listen(ctx context.Context, path string, mode fs.FileMode) (*net.UnixListener, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s exists and is not a socket", path)
		}
		if c, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
			_ = c.Close() // only asked whether somebody listens
			return nil, fmt.Errorf("%s: another process listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		// Linux gives the socket's file the mode of the socket itself, less the umask.
		err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, chmod)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener) //nolint:forcetypeassert // what "unix" gives
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}
