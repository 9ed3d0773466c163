package unixsock_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"signet.example/internal/unixsock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a folder whose sockets' paths fit into 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "us")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in /tmp
	return dir
}

func TestEachSideOfASocketSeesWhoTheOtherIs(t *testing.T) {
	path := filepath.Join(shortDir(t), "s.sock")
	l, err := unixsock.Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		p, err := unixsock.PeerOf(c)
		if err != nil || int(p.UID) != os.Geteuid() || int(p.PID) != os.Getpid() {
			t.Errorf("%+v, %v", p, err)
		}
		_ = c.Close()
	}
	refuse := unixsock.Credentials(func(unixsock.Peer) error { return errors.New("no") })
	if _, _, err := refuse.ClientHandshake(t.Context(), "", near); err == nil {
		t.Error("a connection whose peer is refused, or is gone, was taken")
	}
	if p, err := unixsock.PeerOf(&net.TCPConn{}); err == nil {
		t.Errorf("a TCP connection has the peer %+v", p)
	}
}

func TestListenReplacesADeadSocketAndNothingElse(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s.sock")
	l, err := unixsock.Listen(t.Context(), path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := unixsock.Listen(t.Context(), path, 0o600); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second listener: %v", err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close() // as if it had been killed
	l, err = unixsock.Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatalf("in the place of a dead one: %v", err)
	}
	_ = l.Close()
	for name, make := range map[string]func(string) error{
		"a file":   func(p string) error { return os.WriteFile(p, []byte("keep"), 0o600) },
		"a link":   func(p string) error { return os.Symlink(path, p) },
		"a folder": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		other := filepath.Join(dir, "other")
		if err := make(other); err != nil {
			t.Fatal(err)
		}
		if _, err := unixsock.Listen(t.Context(), other, 0o600); err == nil {
			t.Errorf("%s was replaced", name)
		}
		if _, err := os.Lstat(other); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
		_ = os.RemoveAll(other)
	}
}

// Who answers is checked as who asks is: a token from an impostor has his pin.
func TestOnlyRootOurselvesOrTheFoldersOwnOwnerMayAnswer(t *testing.T) {
	dir := shortDir(t)
	const other, third = 54321, 54322
	allowed := func(uid uint32) error {
		return unixsock.TrustedListener(filepath.Join(dir, "s.sock"))(unixsock.Peer{UID: uid})
	}
	for _, uid := range []uint32{0, uint32(os.Geteuid())} { //nolint:gosec // a uid has 32 bits
		if err := allowed(uid); err != nil {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
	if err := allowed(other); err == nil || !strings.Contains(err.Error(), fmt.Sprint("uid ", other)) {
		t.Errorf("another user in our own folder: %v", err)
	}
	if os.Geteuid() != 0 {
		return // only root can give a folder away
	}
	for _, c := range []struct {
		owner int
		mode  fs.FileMode
		uid   uint32
		want  bool
	}{
		{other, 0o700, other, true},
		{other, 0o755, other, true},
		{other, 0o755, third, false},
		{other, 0o777, other, false},
		{other, 0o775, other, false},
		{other, 0o777 | fs.ModeSticky, third, false},
		{0, 0o777 | fs.ModeSticky, other, false},
	} {
		if err := os.Chown(dir, c.owner, third); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := allowed(c.uid); (err == nil) != c.want {
			t.Errorf("folder of %d with mode %v, answered by %d: %v", c.owner, c.mode, c.uid, err)
		}
	}
}

func TestALinkInTheSocketsPlaceIsGivenNoMode(t *testing.T) {
	dir, secret := shortDir(t), filepath.Join(t.TempDir(), "host.key")
	if err := errors.Join(os.WriteFile(secret, nil, 0o600), os.Symlink(secret, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	err := unixsock.SetMode(filepath.Join(dir, "link"), 0o666)
	if info, stat := os.Stat(secret); err == nil || stat != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, %v", err, info.Mode(), stat)
	}
}
