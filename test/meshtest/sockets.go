package meshtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

// OnSockets is a node whose application listens on a Unix socket. The test must be
// root, and Options.ProxyUser a number.
type OnSockets struct {
	// User that the application listens as, and the number of its group.
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

// SocketFolders makes the folders of an application on sockets, and of its proxy's way
// out, and returns what the agent's configuration says of them.
func (w *World) SocketFolders(name string, s OnSockets) (app, egress string) {
	w.T.Helper()
	proxy, err := strconv.Atoi(w.opts.ProxyUser)
	if err != nil {
		w.T.Fatal(err)
	}
	dir := filepath.Join(w.Dir, name+"-app")
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
	if s.WayOut {
		egress = filepath.Join(w.folder(name+"-out", proxy, s.User), "out.sock")
	}
	return "unix:" + filepath.Join(dir, "{port}.sock"), egress
}

// onSockets gives a node its folders, and its application's listener.
func (w *World) onSockets(n *Node, s OnSockets) net.Listener {
	w.T.Helper()
	app, egress := w.SocketFolders(n.Name, s)
	n.App = app
	if egress != "" {
		n.Egress = egress
	}
	path := strings.TrimPrefix(strings.Replace(app, "{port}", strconv.Itoa(AppPort), 1), "unix:")
	var l net.Listener
	var err error
	parts.AsUser(w.T, s.User, func() { l, err = net.Listen("unix", path) })
	if err := errors.Join(err, os.Chmod(path, 0o660)); err != nil {
		w.T.Fatal(err)
	}
	if err := w.listensAs(l, s.User); err != nil {
		w.T.Fatal(err)
	}
	return l
}

const listenerEnv = "SIGNET_TEST_LISTENER"

// listensAs has a process of the user call listen(2), which the kernel remembers, and
// stay. A thread of the test that has another user is not enough: without
// SO_PEERPIDFD an application is looked up by its number, whose process is root's.
func (w *World) listensAs(l net.Listener, uid int) error {
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // the child holds its own copy
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{listenerEnv + "=" + strconv.Itoa(uid)}
	cmd.ExtraFiles, cmd.Stderr = []*os.File{f}, os.Stderr
	in, err := cmd.StdinPipe() // it ends with the test
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := errors.Join(cmd.Start(), unix.SetNonblock(int(f.Fd()), true)); err != nil { // what a child is given blocks, here too
		return err
	}
	w.T.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() }) // how it ended does not matter
	_, err = io.ReadFull(out, make([]byte, 1))
	return err
}

// Listener is what TestMain calls first where a test has OnSockets: it reports
// whether this process is the one that listens for an application, and is over.
func Listener() bool {
	text := os.Getenv(listenerEnv)
	if text == "" {
		return false
	}
	uid, err := strconv.Atoi(text)
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setresgid(uid, uid, uid), syscall.Setresuid(uid, uid, uid), syscall.Listen(3, 128))
	}
	if err == nil {
		_, err = os.Stdout.WriteString("y")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	return true
}

// EgressNetwork is what EgressAddress is an address of.
func (n Node) EgressNetwork() string {
	if strings.HasPrefix(n.Egress, "/") {
		return "unix"
	}
	return "tcp"
}
