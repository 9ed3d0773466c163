package attestation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/identity"
)

// How a peer is held.
const (
	// ModePidfd: the kernel handed out a pidfd of the process that connected.
	ModePidfd = "pidfd"
	// ModeLegacy: the pidfd was opened by the pid of SO_PEERCRED, on kernels before
	// 6.5. A process that exited in between could have given its pid to another;
	// what both have in common (user, group) is checked, and the mode reported.
	ModeLegacy = "legacy"
	// ModeTask: what is attested is the task as a whole. Whoever can open the socket is in
	// it, and its processes are not told apart, except for the proxies that the agent
	// started: a process of another container has no process id here.
	ModeTask = "task"
)

// Attestor makes peers of connections. The zero value works.
type Attestor struct {
	// Supervised reports which proxy of the agent's own the process of pidfd is,
	// if any; Children.Supervised is one. It is called for every answer, from
	// any goroutine, and must not keep the descriptor.
	Supervised func(pidfd int, pid int) (proxy string, ok bool)
	// Started reports whether a process id may be that of one which Supervised knows: Proxy
	// is asked for whoever comes, and looks no further where it is not. Nil: any may be.
	Started func(pid int) bool
	// WantsHash reports whether something hangs on the hash of a program that has the
	// other selectors. Nil: of any. It is called for every answer, from any goroutine.
	WantsHash func(others identity.Selectors) bool
	// Task is set where all who can open the sockets are one task, which is attested as a
	// whole (ModeTask).
	Task bool
	// Platform is what its platform says of the task: selectors of all who connect. It is empty
	// where Task is not set.
	Platform identity.Selectors
	// RefuseLegacy refuses every peer where the kernel has no SO_PEERPIDFD.
	RefuseLegacy bool

	hashes hashesByUser

	testOnlyLegacy  bool   // behave as a kernel without SO_PEERPIDFD
	testOnlyCgroups string // in the place of where cgroup v2 is mounted
}

// Peer is one connected local process. It holds two things of the moment of
// connecting: the pidfd, which goes on meaning that process, and what it was
// then (program, user, group).
type Peer struct {
	attestor *Attestor
	mode     string
	pid      int
	uid, gid uint32 // effective at connect(2), by the kernel's word
	image    image
	path     string                            // of image.exe as seen from here; "" where it is another file or none
	hash     func(has identity.Selectors) bool // in the place of Attestor.WantsHash; nil of who connected

	// pidfd is valid between acquire and release; the last user after Close closes it.
	pidfd int

	mu     sync.Mutex // guards the two below
	users  int
	closed bool
}

// Peer returns the process that connected c. The caller closes it with the
// connection.
func (a *Attestor) Peer(c *net.UnixConn) (*Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("attest peer: %w", err)
	}
	p := &Peer{attestor: a, pidfd: -1}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = p.open(int(fd)) })
	if err = errors.Join(err, inner); err == nil && !a.Task {
		err = p.remember()
	}
	if err != nil {
		_ = p.Close() // the first error is the one to tell
		return nil, fmt.Errorf("attest peer: %w", err)
	}
	return p, nil
}

// open fills in pid, user, group and pidfd from the socket.
func (p *Peer) open(socket int) error {
	pid, err := p.credentials(socket)
	if err != nil {
		return err
	}
	err = p.openProcess(socket, pid)
	if p.attestor.Task {
		p.mode = ModeTask
		if errors.Is(err, ErrInvisible) { // of another container
			return nil
		}
	}
	return err
}

// credentials fills in user and group, which the kernel has of every peer. It is the
// only place that does: no user 0 is one that was not looked up. The process id is 0
// for a process that is not visible here.
func (p *Peer) credentials(socket int) (pid int, err error) {
	cred, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	p.uid, p.gid = cred.Uid, cred.Gid
	return int(cred.Pid), nil
}

// openProcess fills in pidfd and pid.
func (p *Peer) openProcess(socket, pid int) error {
	if pid <= 0 { // unix(7): 0 when the peer's PID namespace is not below ours
		return ErrInvisible
	}
	err := p.openPidfd(socket, pid)
	if err != nil {
		return err
	}
	p.pid, err = pidOf(p.pidfd)
	if err == nil && p.pid != pid {
		err = fmt.Errorf("pidfd is of process %d, the connection of %d", p.pid, pid)
	}
	return err
}

func (p *Peer) openPidfd(socket, pid int) error {
	var err error
	if !legacyKernel && !p.attestor.testOnlyLegacy {
		p.pidfd, err = unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if err == nil {
			p.mode = ModePidfd
			unix.CloseOnExec(p.pidfd) // the kernel has set it; no child of ours shall inherit one
			return nil
		}
		p.pidfd = -1
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return ErrGone // reaped before we asked
		}
		if !errors.Is(err, unix.ENOPROTOOPT) {
			return fmt.Errorf("SO_PEERPIDFD: %w", err)
		}
	}
	if p.attestor.RefuseLegacy {
		return ErrLegacy
	}
	p.pidfd, err = unix.PidfdOpen(pid, 0)
	if err != nil {
		p.pidfd = -1
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		return fmt.Errorf("pidfd_open: %w", err)
	}
	p.mode = ModeLegacy
	return p.stillSame(pid)
}

// stillSame returns an error where a pidfd that was opened by pid is of a process with another user
// or group than the one that connected: its pid is another's by now.
func (p *Peer) stillSame(pid int) error {
	proc, err := openProc(pid, p.pidfd)
	if err != nil {
		return err
	}
	defer proc.close()
	if err := p.checkIDs(proc); err != nil {
		return p.orGone(err)
	}
	return alive(p.pidfd)
}

// remember takes down what the process is now, as close to its connecting as
// can be. A set-user-ID program that it executed before we looked shows by the
// credentials, which the kernel noted at connect(2).
func (p *Peer) remember() error {
	proc, err := openProc(p.pid, p.pidfd)
	if err != nil {
		return err
	}
	defer proc.close()
	if p.image, err = proc.image(); err != nil {
		return p.orGone(err)
	}
	p.path = proc.path(p.image.exe)
	if err := p.unchanged(proc); err != nil {
		return p.orGone(err)
	}
	return nil
}

// selectorsTime bounds what one peer's program costs: who starts a large one does not
// keep a socket's slot with it.
const selectorsTime = 5 * time.Second

// Selectors reads what the process is, anew for each call. It refuses one that
// is gone, has executed a program, or has changed user or group since it
// connected; these are looked at before and after, so that everything in
// between is of the process that connected.
func (p *Peer) Selectors(ctx context.Context) (identity.Selectors, error) {
	if p.attestor.Task {
		return p.inTask(ctx)
	}
	return p.look(ctx, func(*proc) error { return nil })
}

// Look is Selectors, and whether the process is in this one's network namespace. That is read
// from the process, too: where it cannot be, there is an error, and nobody's word takes its
// place. A task has one network namespace.
func (p *Peer) Look(ctx context.Context) (has identity.Selectors, sameNetwork bool, err error) {
	if p.attestor.Task {
		has, err = p.inTask(ctx)
		return has, err == nil, err
	}
	has, err = p.look(ctx, func(proc *proc) error {
		var theirs, ours unix.Stat_t
		if err := errors.Join(unix.Fstatat(proc.dir, "ns/net", &theirs, 0), unix.Stat("/proc/self/ns/net", &ours)); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
		sameNetwork = theirs.Dev == ours.Dev && theirs.Ino == ours.Ino
		return nil
	})
	return has, sameNetwork && err == nil, err
}

// look is Selectors; also reads what else is wanted, at the same moment.
func (p *Peer) look(ctx context.Context, also func(*proc) error) (identity.Selectors, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	ctx, cancel := context.WithTimeout(ctx, selectorsTime)
	defer cancel()
	proc, err := openProc(p.pid, p.pidfd)
	if err != nil {
		return nil, fmt.Errorf("attest peer %d: %w", p.pid, err)
	}
	defer proc.close()
	sels, err := p.read(ctx, proc, also)
	if err != nil {
		return nil, fmt.Errorf("attest peer %d: %w", p.pid, p.orGone(err))
	}
	return sels, nil
}

// inTask is Selectors where the task is the unit. Nothing is read from the /proc of the
// process: it may have none here, and the agent no right to.
func (p *Peer) inTask(ctx context.Context) (identity.Selectors, error) {
	if err := p.Alive(); err != nil {
		return nil, fmt.Errorf("attest peer %d: %w", p.pid, err)
	}
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	var has identity.Selectors
	for _, w := range workloads {
		if !w.task {
			continue
		}
		more, err := w.of(ctx, p, nil, has)
		if err != nil {
			return nil, err
		}
		has = append(has, more...)
	}
	return has, nil
}

func (p *Peer) read(ctx context.Context, proc *proc, also func(*proc) error) (identity.Selectors, error) {
	if err := p.unchanged(proc); err != nil {
		return nil, err
	}
	var has identity.Selectors
	for _, w := range workloads {
		more, err := w.of(ctx, p, proc, has)
		if err != nil {
			return nil, err
		}
		has = append(has, more...)
	}
	if err := also(proc); err != nil {
		return nil, err
	}
	return has, p.unchanged(proc)
}

// unchanged returns nil while the process is the one that connected, and as it was.
func (p *Peer) unchanged(proc *proc) error {
	now, err := proc.image()
	if err != nil {
		return err
	}
	if now != p.image {
		return ErrExec
	}
	if err := p.checkIDs(proc); err != nil {
		return err
	}
	return alive(p.pidfd)
}

func (p *Peer) checkIDs(proc *proc) error {
	uid, gid, err := proc.ids()
	if err != nil {
		return err
	}
	if uid != p.uid || gid != p.gid {
		return ErrCredentials
	}
	return nil
}

// orGone replaces the many ways in which reading a dying process fails by the
// one reason. A process that exits has lost its program before its last thread
// is gone and the pidfd says so.
func (p *Peer) orGone(err error) error {
	if alive(p.pidfd) != nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Alive returns ErrGone once the process has exited, and ErrClosed after Close.
// It is cheap; it tells nothing of what the process runs.
func (p *Peer) Alive() error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	if p.pidfd < 0 { // of another container of the task: its end shows by that of the connection
		return nil
	}
	return alive(p.pidfd)
}

// PID of the process as seen from here, 0 where it is not. It is for people to read:
// decisions go by the pidfd.
func (p *Peer) PID() int { return p.pid }

// Proxy is which proxy of the agent's own the process is, if any. It is cheap, and
// tells nothing of what the process runs: it is for bounds, and not for answers.
func (p *Peer) Proxy() (name string, ok bool) {
	if p.attestor.Supervised == nil || p.acquire() != nil {
		return "", false
	}
	defer p.release()
	return p.attestor.Supervised(p.pidfd, p.pid)
}

// Proxy is Peer.Proxy of the process that connected c.
func (a *Attestor) Proxy(c *net.UnixConn) (name string, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", false
	}
	p := &Peer{attestor: a, pidfd: -1}
	defer func() { _ = p.Close() }() // a pidfd
	var inner error
	if err := raw.Control(func(fd uintptr) {
		var pid int
		if pid, inner = p.credentials(int(fd)); inner == nil && (a.Started == nil || a.Started(pid)) {
			inner = p.openProcess(int(fd), pid)
		}
	}); err != nil || inner != nil || p.pidfd < 0 {
		return "", false
	}
	return p.Proxy()
}

// UID is the effective user at connect(2).
func (p *Peer) UID() uint32 { return p.uid }

// Mode is ModePidfd, ModeLegacy or ModeTask.
func (p *Peer) Mode() string { return p.mode }

// Close lets go of the process. It does not wait for a call under way, and may
// be called more than once.
func (p *Peer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.closeUnused()
}

func (p *Peer) acquire() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.users++
	return nil
}

func (p *Peer) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	_ = p.closeUnused() // a pidfd has nothing to flush
}

// closeUnused needs mu.
func (p *Peer) closeUnused() error {
	if !p.closed || p.users > 0 || p.pidfd < 0 {
		return nil
	}
	err := unix.Close(p.pidfd)
	p.pidfd = -1
	if err != nil {
		return fmt.Errorf("close pidfd: %w", err)
	}
	return nil
}
