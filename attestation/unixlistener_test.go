package attestation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

func TestTheListenerOfAUnixSocketIsWhoCalledListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "ul") // short: a Unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	nobody := func(what string) {
		t.Helper()
		if l, err := ListenerAt(path); !errors.Is(err, ErrNoOwner) {
			t.Errorf("%s: %+v, %v", what, l, err)
		}
	}
	nobody("nothing there")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ListenerAt(path)
	if err != nil || got.UID != ourUID || got.Unseen != nil || !got.Known() {
		t.Errorf("%+v, %v", got, err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	nobody("a socket that a dead process left")
}

// Whose file it is, who accepts and who has the socket now do not matter.
func TestTheListenerOfAUnixSocketIsAnotherUserByTheKernelsWord(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "another user needs root")
	}
	dir, err := os.MkdirTemp("", "ul")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.sock")
	const other = 61001
	var l *net.UnixListener
	parts.AsUser(t, other, func() {
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chown(path, 0, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := ListenerAt(path); err != nil || got.UID != other {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAFullUnixSocketKeepsNobodyWaiting(t *testing.T) {
	dir, err := os.MkdirTemp("", "ul")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var held []int
	t.Cleanup(func() {
		for _, c := range held {
			_ = unix.Close(c)
		}
	})
	for range 8 {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		if unix.Connect(c, &unix.SockaddrUnix{Name: path}) != nil {
			break
		}
	}
	if l, err := ListenerAt(path); !errors.Is(err, ErrSocketBusy) {
		t.Errorf("%+v, %v", l, err)
	}
}
