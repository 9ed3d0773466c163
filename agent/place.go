package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"signet.example/internal/private"
)

// This file is about the two sides of a proxy that face its application: where
// the application listens, and where it calls out. Each is an address, or a Unix
// socket, which nobody else can take while its owner is away.

const (
	unixPrefix = "unix:"
	// portMark stands for the listener's port in the name of an application's sockets.
	portMark = "{port}"
	// defaultEgressMode lets in the proxy's own user and the group of the folder.
	defaultEgressMode = 0o660
)

// place is where an application listens.
type place struct {
	addr   netip.Addr
	socket string // with portMark; empty for an address
}

func parsePlace(text string) (place, error) {
	if socket, ok := strings.CutPrefix(text, unixPrefix); ok {
		folder, file := filepath.Split(socket)
		if strings.Count(file, portMark) != 1 || strings.Contains(folder, portMark) {
			return place{}, fmt.Errorf("want an IP address or unix:/folder/%s.sock, with %s once and in the file's name, got %.128q", portMark, portMark, text)
		}
		return place{socket: socket}, validSocket(strings.Replace(socket, portMark, "65535", 1))
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return place{}, fmt.Errorf("want an IP address or unix:/folder/%s.sock, got %.64q", portMark, text)
	}
	return place{addr: addr.Unmap()}, nil
}

func (p place) String() string {
	if p.socket != "" {
		return unixPrefix + p.socket
	}
	return p.addr.String()
}

func (p place) socketFor(port uint16) string {
	return strings.Replace(p.socket, portMark, strconv.Itoa(int(port)), 1)
}

// egressAt is where an outbound listener listens.
type egressAt struct {
	netip.AddrPort
	socket string // in the place of an address
	mode   uint32 // of the socket
}

func (e egressAt) String() string {
	if e.socket != "" {
		return unixPrefix + e.socket
	}
	return e.AddrPort.String()
}

// parseEgress reads an address with its port, or a socket.
func parseEgress(text, mode string) (egressAt, error) {
	socket, ok := strings.CutPrefix(text, unixPrefix)
	if !ok {
		at, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
			return egressAt{}, fmt.Errorf("want an IP address with its port, such as 127.0.0.1:15001, or unix:/folder/name.sock, got %.64q", text)
		case mode != "":
			return egressAt{}, fmt.Errorf("%s is not a Unix socket: leave egress_mode out", at)
		}
		return egressAt{AddrPort: at}, nil
	}
	e := egressAt{socket: socket, mode: defaultEgressMode}
	switch mode {
	case "", "0660", "660":
	case "0600", "600":
		e.mode = 0o600
	default:
		return egressAt{}, fmt.Errorf("egress_mode: want \"0660\" (the proxy's user and the group of the socket's folder) or \"0600\" (the proxy's user alone), got %.16q: whoever can open the socket calls as this proxy", mode)
	}
	return e, validSocket(socket)
}

func validSocket(path string) error {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsFunc(path, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("want unix: with a clean absolute path, got %.128q", path)
	case len(path) > maxSocketPath:
		return fmt.Errorf("%q is longer than a socket's path may be (%d)", path, maxSocketPath)
	}
	return nil
}

// valid refuses an outbound listener that other hosts reach, unless that was
// asked for by name: whoever connects to it calls as the proxy.
func (e egressAt) valid(open bool) error {
	a := e.Addr()
	switch {
	case e.socket != "" && open:
		return fmt.Errorf("%s is a Unix socket: leave egress_open out", e)
	case e.socket != "":
		return nil
	case e.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6():
		return fmt.Errorf("%s is not the address of one host with a port", e)
	case !a.IsLoopback() && !open:
		return fmt.Errorf("%s is not a loopback address: other hosts reach it, and who calls from there cannot be seen; use an address such as 127.0.0.1 or a Unix socket, or allow it with egress_open: true", e)
	case a.IsLoopback() && open:
		return fmt.Errorf("%s is a loopback address: leave egress_open out", e)
	}
	return nil
}

// tryFolder checks whether the proxy, of this user, can make the socket and nobody
// else can put one in its place.
func (e egressAt) tryFolder(uid uint32) error {
	if e.socket == "" {
		return nil
	}
	folder := filepath.Dir(e.socket)
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
	return nil
}

// trySocket checks that the socket is the proxy's, and lets in nobody except whom
// its mode names.
func (e egressAt) trySocket(uid uint32) error {
	if err := e.tryFolder(uid); err != nil {
		return err
	}
	info, err := os.Lstat(e.socket)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid //nolint:forcetypeassert // Linux
	switch {
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is not a socket", e.socket)
	case owner != uid:
		return fmt.Errorf("%s belongs to uid %d and not to the proxy, uid %d", e.socket, owner, uid)
	case uint32(info.Mode().Perm())&^e.mode != 0:
		return fmt.Errorf("%s has mode %#o and not %#o: restart the proxy", e.socket, info.Mode().Perm(), e.mode)
	}
	return nil
}

// who says whom the socket lets in, for people to read.
func (e egressAt) who() (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(e.socket, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: e.socket, Err: err}
	}
	who := fmt.Sprintf("whoever can open %s: user %d", e.socket, st.Uid)
	if e.mode&0o060 != 0 {
		who += fmt.Sprintf(" and group %d", st.Gid)
	}
	return who, nil
}

// tryFolder checks whether only one user, and root, can put sockets where the
// application's are to be.
func (p place) tryFolder() error {
	if p.socket == "" {
		return nil
	}
	folder := filepath.Dir(p.socket)
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return fmt.Errorf("the folder of the application's sockets: %w", &os.PathError{Op: "stat", Path: folder, Err: err})
	}
	return appFolder(folder, st.Uid)
}

// stNoSymfollow is ST_NOSYMFOLLOW of statfs(2).
const stNoSymfollow = 0x2000

// appFolder returns an error if anybody but the user and root could put a socket
// into a folder, or the user a link: a proxy follows links, and would connect for
// an application's user to what only the proxy's may, as its admin interface.
func appFolder(folder string, uid uint32) error {
	if err := private.Folder(folder, uid); err != nil || uid == 0 {
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
