package meshtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"signet.example/test/parts"
)

// Process is one process of a World; its output is in <name>.log.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Run runs another program beside the mesh until the test ends.
func (w *World) Run(name, program string, args ...string) *Process {
	w.T.Helper()
	p := w.process(name, program, args...)
	w.T.Cleanup(p.Stop)
	return p
}

func (w *World) process(name, program string, args ...string) *Process {
	return w.processEnv(name, nil, program, args...)
}

func (w *World) processEnv(name string, env []string, program string, args ...string) *Process {
	w.T.Helper()
	p := &Process{Name: name, log: filepath.Join(w.Dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		w.T.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the child holds its own copy
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.start(); err != nil {
		w.T.Fatalf("start %s: %v", name, err)
	}
	return p
}

// start starts the process so that it ends with this one, even if this one is
// killed; server and agent see to it that their own children do too.
func (p *Process) start() error {
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		// The kernel takes the thread for the parent: it has to stay for as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended does not matter to a test that ends it
		}
	}()
	return <-started
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive reports whether the process still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill sends SIGKILL and waits.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 10*time.Second) }

// Stop sends SIGTERM and waits; what does not obey in 15 s is killed.
func (p *Process) Stop() {
	p.end(syscall.SIGTERM, 15*time.Second)
	p.end(syscall.SIGKILL, 5*time.Second)
}

func (p *Process) end(sig syscall.Signal, bound time.Duration) {
	if !p.Alive() {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	select {
	case <-p.done:
	case <-time.After(bound):
	}
}

// Tail is the end of the process's log.
func (p *Process) Tail(n int) string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-n):])
}

// Soak picks ci, or soak where counts and durations are scaled up.
func Soak[T any](ci, soak T) T {
	if parts.Soak() {
		return soak
	}
	return ci
}
