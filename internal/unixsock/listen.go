package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"signet.example/internal/private"
)

// mostPath is how long the path of a socket can be (unix(7): sun_path with its end).
const mostPath = 107

// Try returns why Listen would fail. It takes nothing, not for an instant either: a
// process that starts meanwhile has the socket.
func Try(ctx context.Context, path string) error {
	if len(path) > mostPath {
		return fmt.Errorf("%s: a socket's path has at most %d bytes, this one %d: choose a shorter one", path, mostPath, len(path))
	}
	if err := private.Writable(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err := dead(ctx, path)
	return err
}

// dead reports whether a socket lies at path on which nobody listens. What else is
// there is an error.
func dead(ctx context.Context, path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode().Type() != os.ModeSocket {
		return false, fmt.Errorf("%s exists and is not a socket", path)
	}
	if c, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close() // only asked whether somebody listens
		return false, fmt.Errorf("%s: another process listens there", path)
	}
	return true, nil
}

// Listen makes a Unix socket whose file has this mode from the first instant. A
// socket that a dead process left is replaced; anything else under that name is
// left alone, and refused.
func Listen(ctx context.Context, path string, mode fs.FileMode) (*net.UnixListener, error) {
	left, err := dead(ctx, path)
	if err == nil && left {
		err = os.Remove(path)
	}
	if err != nil {
		return nil, err
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
	if err := setMode(path, mode.Perm()); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// setMode is chmod, whatever the umask was, of what lies in the path's folder: whoever else can
// write there could put a link in the socket's place, as root of another container of a task.
func setMode(path string, mode fs.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(root.Chmod(filepath.Base(path), mode), root.Close())
}
