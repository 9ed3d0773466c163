package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// grace is how long a child may take to stop after SIGTERM.
const grace = 8 * time.Second

// child is one process of the demo. Its output goes to <name>.log.
type child struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // owned by the waiting goroutine until done is closed
	// meant is set before it is killed on purpose: then its end is no news.
	meant atomic.Bool
}

// children are started one by one and stopped in the reverse order.
type children struct {
	dir  string
	all  []*child
	died chan *child // told of each end; buffered for every child
}

func newChildren(dir string) *children {
	return &children{dir: dir, died: make(chan *child, 64)}
}

// start runs a program in the demo's own environment.
func (cs *children) start(name, program string, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(cs.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) // one that is started again goes on in it
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer func() { _ = out.Close() }()     // the child holds its own copy
	c.cmd = exec.Command(program, args...) //nolint:gosec,noctx // our own programs; ended by stop
	c.cmd.Stdout, c.cmd.Stderr = out, out
	// A process group of its own: Ctrl-C on the terminal reaches the demo alone,
	// which then stops its children in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := startLocked(c.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cs.all = append(cs.all, c)
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
		if !c.meant.Load() {
			cs.died <- c
		}
	}()
	return c, nil
}

// named is the child that was started last under a name.
func (cs *children) named(name string) *child {
	for _, c := range slices.Backward(cs.all) {
		if c.name == name {
			return c
		}
	}
	panic("internal error: no child " + name)
}

// stop ends every child, last started first, and waits for each.
func (cs *children) stop() error {
	var errs []error
	for _, c := range slices.Backward(cs.all) {
		errs = append(errs, c.stop())
	}
	return errors.Join(errs...)
}

func (c *child) stop() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-c.done:
		return nil
	case <-late.C:
	}
	_ = c.cmd.Process.Kill() // ended meanwhile, or ends now
	<-c.done
	return fmt.Errorf("%s did not stop within %s and was killed", c.name, grace)
}

// tail is the end of a child's log, for an error message.
func (c *child) tail() string {
	content, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	if len(content) > 2000 {
		content = content[len(content)-2000:]
	}
	return string(content)
}

// finalError is of a condition that waiting does not change.
type finalError struct{ error }

// await calls ready every 20 ms until it holds, and gives up when ctx ends,
// a child dies or the error is a finalError.
func (cs *children) await(ctx context.Context, what string, ready func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if final, ok := errors.AsType[finalError](err); ok {
			return fmt.Errorf("%s: %w", what, final)
		}
		select {
		case c := <-cs.died:
			// Whoever asks next must know, too.
			cs.died <- c
			return fmt.Errorf("%s: %s ended: %v; its last words:\n%s", what, c.name, c.err, c.tail()) //nolint:errorlint // nil where it ended by itself
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
