package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// SocketListener is who listens on a Unix socket, by the kernel's word: whoever
// called listen(2), whatever became of it since.
type SocketListener struct {
	UID uint32
	// Unit is the service or container of that process, "" for none.
	Unit string
	// Unseen is why its unit cannot be seen, where it cannot.
	Unseen error
}

// Known reports whether the user has a number in this user namespace.
func (l SocketListener) Known() bool { return SocketOwner{UID: l.UID}.Known() }

// ErrSocketBusy is returned for a socket that takes no connection at the moment.
var ErrSocketBusy = errors.New("as many connections as it takes wait for it")

// ListenerAt connects to the Unix socket at path to see who listens there, says
// nothing, and does not wait. Where nobody does it returns ErrNoOwner.
func ListenerAt(path string) (SocketListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return SocketListener{}, fmt.Errorf("who listens at %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	switch err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED):
		err = ErrNoOwner
	case errors.Is(err, unix.EAGAIN):
		err = ErrSocketBusy
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("the agent's user may not connect to it: %w", err)
	}
	if err != nil {
		return SocketListener{}, fmt.Errorf("who listens at %s: %w", path, err)
	}
	p := &Peer{attestor: new(Attestor), pidfd: -1}
	defer func() { _ = p.Close() }() // a pidfd
	pid, err := p.credentials(fd)
	if err != nil {
		return SocketListener{}, fmt.Errorf("who listens at %s: %w", path, err)
	}
	l := SocketListener{UID: p.uid}
	err = p.openProcess(fd, pid)
	if p.pidfd < 0 && !errors.Is(err, ErrGone) && !errors.Is(err, ErrInvisible) {
		return SocketListener{}, fmt.Errorf("who listens at %s: %w", path, err)
	}
	if err == nil {
		l.Unit, err = p.unit()
	}
	if err != nil {
		l.Unseen = fmt.Errorf("who listens at %s: its service or container: %w", path, err)
	}
	return l, nil
}

// unit is the service or container that the process is in.
func (p *Peer) unit() (string, error) {
	proc, err := openProc(p.pid, p.pidfd)
	if err != nil {
		return "", err
	}
	defer proc.close()
	// By its number alone another process could be meant: one of another user is not.
	if uid, _, err := proc.ids(); p.mode == ModeLegacy && err == nil && uid != p.uid {
		return "", p.orGone(fmt.Errorf("process %d, which is all that this kernel tells, is of user %d now: %w", p.pid, uid, ErrCredentials))
	} else if p.mode == ModeLegacy && err != nil {
		return "", p.orGone(err)
	}
	raw, err := proc.read("cgroup", nil)
	if err != nil {
		return "", p.orGone(err)
	}
	if err := alive(p.pidfd); err != nil {
		return "", err
	}
	for line := range bytes.Lines(raw) {
		// cgroups(7): hierarchy 0 is that of cgroup v2.
		at, ok := strings.CutPrefix(strings.TrimRight(string(line), "\n"), "0::")
		switch {
		case !ok:
		case strings.HasPrefix(at, "/.."): // outside of this process's cgroup namespace
			return "", ErrInvisible
		default:
			return unitOf(strings.TrimSuffix(at, " (deleted)")), nil
		}
	}
	return "", nil // a host without cgroup v2
}
