package wayout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"signet.example/internal/private"
	"signet.example/proxy"
)

// This file looks at the folders and sockets of the two sides of a proxy that
// face its application: a Unix socket is one that nobody else can take while its
// owner is away.

// CheckEgress checks whether the proxy, of this user, can make the socket and nobody
// else can put one in its place.
func CheckEgress(e proxy.Egress, uid uint32) error {
	if e.Socket == "" {
		return nil
	}
	folder := filepath.Dir(e.Socket)
	info, err := os.Stat(folder)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is missing, where the proxy is to make its socket: install -d -o %d -g <group of the application> -m 2750 %s", folder, uid, folder)
	}
	if err != nil {
		return err
	}
	if err := private.Folder(folder, uid); err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid && uid != 0 { //nolint:forcetypeassert // Linux
		return fmt.Errorf("%s belongs to uid %d, and the proxy, uid %d, is to make its socket there: chown %d %s", folder, owner, uid, uid, folder)
	}
	return searchable(folder)
}

// searchable checks whether this process can look at what lies in a folder: where it
// cannot, it would find out at each call, and let nobody out.
func searchable(folder string) error {
	err := unix.Faccessat(unix.AT_FDCWD, folder, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.EACCES) {
		var st unix.Stat_t
		if err := unix.Stat(folder, &st); err != nil {
			return &os.PathError{Op: "stat", Path: folder, Err: err}
		}
		return fmt.Errorf("%s cannot be searched by the agent, uid %d, which looks at the sockets there: put the agent's user into group %d (SupplementaryGroups=%[3]d in its unit)", folder, os.Geteuid(), st.Gid)
	}
	if err != nil {
		return &os.PathError{Op: "access", Path: folder, Err: err}
	}
	return nil
}

// checkEgressSocket checks that the socket is the proxy's, and lets in nobody except whom
// its mode names.
func checkEgressSocket(e proxy.Egress, uid uint32) error {
	if err := CheckEgress(e, uid); err != nil {
		return err
	}
	info, err := os.Lstat(e.Socket)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid //nolint:forcetypeassert // Linux
	switch {
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is not a socket", e.Socket)
	case owner != uid:
		return fmt.Errorf("%s belongs to uid %d and not to the proxy, uid %d", e.Socket, owner, uid)
	case uint32(info.Mode().Perm())&^e.Mode != 0:
		return fmt.Errorf("%s has mode %#o and not %#o: restart the proxy", e.Socket, info.Mode().Perm(), e.Mode)
	}
	return nil
}

// whoOpens is whom the socket lets in, for people to read.
func whoOpens(e proxy.Egress) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(e.Socket, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: e.Socket, Err: err}
	}
	who := fmt.Sprintf("whoever can open %s: user %d", e.Socket, st.Uid)
	if e.Mode&0o060 != 0 {
		who += fmt.Sprintf(" and group %d", st.Gid)
	}
	return who, nil
}

// CheckApp checks the folder of an application on sockets: no proxy is to connect
// to what somebody else puts there.
func CheckApp(s proxy.Shape) error {
	if s.Alone {
		return nil // there is none
	}
	app, err := proxy.ParsePlace(s.App)
	if err == nil {
		err = CheckAppFolder(app)
	}
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	return nil
}

// CheckAppFolder checks whether only one user, and root, can put sockets where the
// application's are to be.
func CheckAppFolder(p proxy.Place) error {
	if p.Socket == "" {
		return nil
	}
	folder := filepath.Dir(p.Socket)
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return fmt.Errorf("the folder of the application's sockets: %w", &os.PathError{Op: "stat", Path: folder, Err: err})
	}
	if err := appFolder(folder, st.Uid); err != nil {
		return err
	}
	return searchable(folder)
}

// stNoSymfollow is ST_NOSYMFOLLOW of statfs(2).
const stNoSymfollow = 0x2000

// appFolder returns an error if anybody but the user and root could put a socket
// into a folder, or the user a link: a proxy follows links, and would connect for
// an application's user to what only the proxy's may, as its admin interface. Nor
// may the user move the folder away, and the mount on it, and make another one.
func appFolder(folder string, uid uint32) error {
	if err := private.Fixed(folder, uid); err != nil || uid == 0 {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	if fs.Flags&stNoSymfollow == 0 {
		return fmt.Errorf("uid %d can make links in %s, by which the proxy would connect to any socket that its user may: mount a tmpfs there with nosymfollow (docs/AGENT.md has the line), or let the folder be root's", uid, folder)
	}
	return nil
}
