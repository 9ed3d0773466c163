package attestation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"signet.example/identity"
)

// unixForms are what ofUnix gives, and hashForms what ofHash does.
var (
	unixForms = identity.Forms{"unix:uid": identity.CheckNumber, "unix:gid": identity.CheckNumber, "unix:path": checkExePath}
	hashForms = identity.Forms{"unix:sha256": checkSHA256}
)

func checkExePath(s string) error {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s || s == "/" {
		return errors.New("want an absolute path without . .. or double slashes")
	}
	return nil
}

func checkSHA256(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return errors.New("want 64 hex digits in lower case")
	}
	return nil
}

// ofUnix returns the selectors of type unix except for the hash: the effective user
// and group, and the path of the program, if it can be vouched for.
func ofUnix(_ context.Context, p *Peer, _ *proc, _ identity.Selectors) (identity.Selectors, error) {
	sels := identity.Selectors{
		unixSelector("uid", strconv.FormatUint(uint64(p.uid), 10)),
		unixSelector("gid", strconv.FormatUint(uint64(p.gid), 10)),
	}
	if p.path != "" {
		sels = append(sels, unixSelector("path", p.path))
	}
	return sels, nil
}

// ofHash returns the program's content, where it can be vouched for and something
// depends on it: reading it can take long, and any local user can ask for it.
func ofHash(ctx context.Context, p *Peer, proc *proc, has identity.Selectors) (identity.Selectors, error) {
	if !p.hashed(has) {
		return nil, nil
	}
	sum, err := p.attestor.hashes.user(p.uid).of(ctx, proc, p.image.exe)
	switch {
	case errors.Is(err, errNoHash):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return identity.Selectors{unixSelector("sha256", sum)}, nil
}

func unixSelector(key, value string) identity.Selector {
	return identity.Selector{Type: "unix", Value: key + ":" + value}
}

// path returns the program's path, but only if that path leads to that very
// file from here too. Else any user could mount another file system over
// /usr/bin in a mount namespace and be /usr/bin/web: the link is written from
// the peer's view. A file that was replaced or removed has no path either; a
// peer that connected before keeps the path that was verified then.
func (p *proc) path(exe inode) string {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(p.dir, "exe", buf[:])
	if err != nil || n == len(buf) {
		return ""
	}
	path := string(buf[:n])
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || (inode{uint64(st.Dev), st.Ino}) != exe {
		return ""
	}
	return path
}

// errNoHash: this program is not hashed.
var errNoHash = errors.New("no hash of the peer's program")

// openExe opens the program for reading, if that is the one wanted. What the
// agent may not read, or what lies on a file system that can answer each
// reader differently (FUSE), is not hashed.
func (p *proc) openExe(exe inode) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := p.open("exe", unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, os.ErrPermission) {
		return nil, st, errNoHash
	}
	if err != nil {
		return nil, st, err
	}
	f := os.NewFile(uintptr(fd), "exe")
	var fs unix.Statfs_t
	err = errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs))
	switch {
	case err != nil:
		err = fmt.Errorf("stat the peer's executable: %w", err)
	case (inode{uint64(st.Dev), st.Ino}) != exe:
		err = ErrExec
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxHashed || fs.Type == unix.FUSE_SUPER_MAGIC:
		err = errNoHash
	default:
		return f, st, nil
	}
	_ = f.Close() // nothing was written
	return nil, st, err
}
