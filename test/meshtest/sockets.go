package meshtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

// OnSockets is a node whose application listens on a Unix socket. The test must be
// root, and Options.ProxyUser a number.
type OnSockets struct {
	// User that the application runs as, and the number of its group.
	User int
	// WayOut makes the node's way out a socket, too, for that group.
	WayOut bool
}

// folder makes one of a user, in which files get the group.
func (w *World) folder(name string, uid, gid int) string {
	w.T.Helper()
	dir := filepath.Join(w.Dir, name)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, uid, gid), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
		w.T.Fatal(err)
	}
	return dir
}

// onSockets gives a node its folders, and its application's listener.
func (w *World) onSockets(n *Node, s OnSockets) net.Listener {
	w.T.Helper()
	proxy, err := strconv.Atoi(w.opts.ProxyUser)
	if err != nil {
		w.T.Fatal(err)
	}
	dir := filepath.Join(w.Dir, n.Name+"-app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.T.Fatal(err)
	}
	// As docs/AGENT.md has it.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSYMFOLLOW|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=1m,mode=2750,uid=%d,gid=%d", s.User, proxy)); err != nil {
		parts.Missing(w.T, "a mount with nosymfollow: "+err.Error())
	}
	w.T.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			w.T.Error(err)
		}
	})
	n.App = "unix:" + filepath.Join(dir, "{port}.sock")
	if s.WayOut {
		n.Egress = filepath.Join(w.folder(n.Name+"-out", proxy, s.User), "out.sock")
	}
	path := filepath.Join(dir, fmt.Sprintf("%d.sock", AppPort))
	var l net.Listener
	parts.AsUser(w.T, s.User, func() { l, err = net.Listen("unix", path) })
	if err := errors.Join(err, os.Chmod(path, 0o660)); err != nil {
		w.T.Fatal(err)
	}
	return l
}

// EgressNetwork is what EgressAddress is an address of.
func (n Node) EgressNetwork() string {
	if strings.HasPrefix(n.Egress, "/") {
		return "unix"
	}
	return "tcp"
}
