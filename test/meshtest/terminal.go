package meshtest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is an interactive bash with job control on a terminal of its own.
type Terminal struct {
	*Process

	keys *os.File
}

// Terminal starts one, which ends with the test. What it shows is in <name>.log.
func (w *World) Terminal(name string, env ...string) *Terminal {
	w.T.Helper()
	keys, screen := w.pty()
	defer func() { _ = screen.Close() }() // bash has its own
	p := &Process{Name: name, log: filepath.Join(w.Dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		w.T.Fatal(err)
	}
	p.cmd = exec.Command("bash", "--norc", "--noprofile", "-i")
	p.cmd.Env = append(append(os.Environ(), "PS1=$ ", "TERM=dumb"), env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = screen, screen, screen
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.start(); err != nil {
		w.T.Fatalf("start %s: %v", name, err)
	}
	copied := make(chan struct{})
	go func() { // until the last process on the terminal has ended, or Close below
		defer close(copied)
		_, _ = io.Copy(out, keys) // EIO at its end
	}()
	w.T.Cleanup(func() {
		p.Kill() // and with it, as when a terminal is closed, what runs on it
		_ = keys.Close()
		<-copied
		_ = out.Close() // for a failed test's message only
	})
	return &Terminal{Process: p, keys: keys}
}

// Type presses keys: "\x03" is Ctrl-C, which the terminal turns into SIGINT for the
// job in the foreground.
func (t *Terminal) Type(text string) error {
	_, err := t.keys.WriteString(text)
	return err
}

// pty opens the two ends of a terminal.
func (w *World) pty() (keys, screen *os.File) {
	w.T.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		w.T.Fatalf("open a terminal: %v", err)
	}
	fd := int(keys.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = keys.Close() // nothing was written
		w.T.Fatalf("open a terminal: %v", err)
	}
	return keys, screen
}
