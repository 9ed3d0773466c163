package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is what a child has. What is not here it does not have.
type Spec struct {
	// Path is the program, Args its arguments without its name.
	Path string
	Args []string
	// Env is the whole environment; nothing of the parent's is added.
	Env []string
	// Dir is the working directory; "/" if empty.
	Dir string
	// Umask of the files that it makes; 0077 if zero.
	Umask int
	// Files are its descriptors from FirstFile on. Standard input is /dev/null.
	Files []*os.File
	// Stdout and Stderr take what it writes; nothing if nil.
	Stdout, Stderr io.Writer
	// User it runs as. Nil: uid, gid and groups of the parent.
	User *User
	// Limits that it is held to.
	Limits Limits
	// Confines says that the program calls Confine before anything else, as ours
	// do. A program that does not may have no capabilities or set-id bits on its file.
	Confines bool
	// Begun is called with the child's pidfd before Start returns, and what it returns
	// when the child is dead and not yet reaped: in between nothing else can be
	// taken for it.
	Begun func(pidfd int) (ended func(), err error)
}

// FirstFile is the number that the first of Spec.Files has in the child: what comes
// before is standard input, output and error.
const FirstFile = 3

// Process is a running child. Its methods can be called from any goroutine.
type Process struct {
	cmd   *exec.Cmd
	pidfd int
	over  chan error // why it was killed by its limits; buffered
	done  chan struct{}
	err   error // set before done is closed
}

// outputWait is how long output is waited for that a grandchild holds open.
const outputWait = 2 * time.Second

// Start starts a child, or fails without leaving one.
func Start(spec Spec) (*Process, error) {
	p := &Process{pidfd: -1, over: make(chan error, 1), done: make(chan struct{})}
	if err := p.prepare(spec); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	started := make(chan error, 1)
	go onThread(func() { // ends with the child
		defer close(p.done)
		ended, err := p.begin(spec)
		started <- err
		if err == nil {
			p.err = p.await(ended)
		}
	})
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	return p, nil
}

func (p *Process) prepare(spec Spec) error {
	p.cmd = exec.Command(spec.Path, spec.Args...) //nolint:gosec,noctx // the caller's choice; it is ended by Stop
	if p.cmd.Err != nil {
		return p.cmd.Err
	}
	var err error
	if spec.Path == Self { // for who looks at it
		if p.cmd.Args[0], err = os.Executable(); err != nil {
			return err
		}
	}
	// As the parent sees it: the child's working directory is another.
	if p.cmd.Path, err = filepath.Abs(p.cmd.Path); err != nil {
		return err
	}
	if err := plainFile(p.cmd.Path); err != nil && !spec.Confines {
		return err
	}
	p.cmd.Env = append([]string{}, spec.Env...) // nil would be the parent's
	if p.cmd.Dir = spec.Dir; p.cmd.Dir == "" {
		p.cmd.Dir = "/"
	}
	p.cmd.ExtraFiles = spec.Files
	p.cmd.Stdout, p.cmd.Stderr = spec.Stdout, spec.Stderr
	p.cmd.WaitDelay = outputWait
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, PidFD: &p.pidfd}
	if u := spec.User; u != nil {
		if err := u.Possible(); err != nil {
			return err
		}
		// The thread has group and groups already.
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, NoSetGroups: true}
	}
	return closeOnExec()
}

// Self is the program of this process: a child of any user can be started of it,
// whoever may enter the folder that it lies in, and after its file was replaced.
const Self = "/proc/self/exe"

// OwnEnv is an environment for a program of ours: what is given, and where a binary
// built for coverage writes it.
func OwnEnv(given ...string) []string {
	if v, ok := os.LookupEnv("GOCOVERDIR"); ok {
		given = append(given, "GOCOVERDIR="+v)
	}
	return given
}

// begin runs on the thread that is to be thrown away.
func (p *Process) begin(spec Spec) (func(), error) {
	if err := shed(spec); err != nil {
		return nil, err
	}
	if err := withUmask(spec.Umask, p.cmd.Start); err != nil {
		return nil, err
	}
	limited := make(chan error)
	go func() { limited <- p.limit(spec.Limits) }() // this thread may not, where the uid differs
	err := <-limited
	ended := func() {}
	if err == nil && spec.Begun != nil {
		ended, err = spec.Begun(p.pidfd)
	}
	if err != nil {
		p.kill()
		_ = p.await(func() {}) // the first error says more
		return nil, err
	}
	return ended, nil
}

// await waits for the end, calls ended, and reaps.
func (p *Process) await(ended func()) error {
	for p.pidfd >= 0 {
		err := unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// Until it is reaped nobody else can have its process group's number.
	_ = unix.Kill(-p.PID(), unix.SIGKILL) // there may be nobody left
	ended()
	err := p.cmd.Wait()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd) // a pidfd has nothing to flush
	}
	select {
	case why := <-p.over:
		return why
	default:
		return err
	}
}

// PID of the child. Once Done is closed it may be another process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and is reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the child ended, once Done is closed: nil for exit status 0, an
// *exec.ExitError, or a *LimitError.
func (p *Process) Err() error { return p.err }

// Stop asks the child to end, with SIGTERM, and kills it after grace; at once if
// grace is 0. It returns when the child is reaped.
func (p *Process) Stop(grace time.Duration) {
	if grace > 0 {
		_ = p.cmd.Process.Signal(unix.SIGTERM) // it may be dead already
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.done:
			return
		case <-t.C:
		}
	}
	p.kill()
	<-p.done
}

// kill is allowed: Start does not start what cannot be killed.
func (p *Process) kill() { _ = p.cmd.Process.Kill() } // it may be dead already
