package attestation

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"signet.example/identity"
)

// ErrNoProcess is returned where no process has a process id.
var ErrNoProcess = errors.New("no process has this id")

// Process returns a process as the peer that it would be if it connected now. It is held by a
// pidfd from then on: what is said of it is of one process, whoever has the pid later. Which
// process a pid is, whoever asks has to know. With hash its program is hashed even if nothing
// hangs on it; without, not even then: that is for looking at many.
func (a *Attestor) Process(pid int, hash bool) (*Peer, error) {
	p := &Peer{attestor: a, mode: ModePidfd, pidfd: -1, hash: func(identity.Selectors) bool { return hash }}
	err := p.openPID(pid)
	if a.Task {
		p.mode = ModeTask
	} else if err == nil {
		err = p.remember()
	}
	if err != nil {
		_ = p.Close() // the first error is the one to tell
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

// openPID fills in pidfd, pid, user and group: those of the process, where those of a
// connection are the kernel's word of connect(2).
func (p *Peer) openPID(pid int) error {
	if pid <= 0 {
		return ErrNoProcess
	}
	var err error
	if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		p.pidfd = -1
		switch {
		case errors.Is(err, unix.ESRCH):
			return ErrNoProcess
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // before and from Linux 6.9
			return fmt.Errorf("%w: it is that of a thread", ErrNoProcess)
		}
		return fmt.Errorf("pidfd_open: %w", err)
	}
	if p.pid, err = pidOf(p.pidfd); err != nil {
		return err
	}
	if p.pid != pid { // its /proc is of another PID namespace than this process
		return ErrInvisible
	}
	proc, err := openProc(p.pid, p.pidfd)
	if err != nil {
		return err
	}
	defer proc.close()
	if p.uid, p.gid, err = proc.ids(); err != nil {
		return err
	}
	return alive(p.pidfd) // of one that has ended the ids are root's
}

// GID is the effective group.
func (p *Peer) GID() uint32 { return p.gid }

// hashed reports whether the program is to be hashed.
func (p *Peer) hashed(has identity.Selectors) bool {
	wants := p.attestor.WantsHash
	if p.hash != nil {
		wants = p.hash
	}
	return wants == nil || wants(has)
}
