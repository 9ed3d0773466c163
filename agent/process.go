package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child that ends with the agent, however the agent ends.
type process struct {
	cmd   *exec.Cmd
	pidfd int
	done  chan struct{}
	err   error // set before done is closed
}

// start starts cmd. begun is called with its pidfd before start returns, and
// what begun returns when the child is dead but not yet reaped, so that in
// between nothing else can be taken for it.
func start(cmd *exec.Cmd, begun func(pidfd int) (ended func(), err error)) (*process, error) {
	p := &process{cmd: cmd, pidfd: -1, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.PidFD = &p.pidfd
	cmd.WaitDelay = 2 * time.Second // for output that a grandchild would hold open
	started := make(chan error, 1)
	go func() { // ends with the child, which Close waits for
		// The kernel sends PDEATHSIG when the thread that forked ends: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		ended, err := p.begin(begun)
		started <- err
		if err == nil {
			p.err = p.await(ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) begin(begun func(int) (func(), error)) (func(), error) {
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.cmd.Path, err)
	}
	if begun == nil {
		return func() {}, nil
	}
	ended, err := begun(p.pidfd)
	if err != nil {
		_ = p.cmd.Process.Kill() // it is our child: it can be killed
		_ = p.await(func() {})   // the first error tells more
		return nil, fmt.Errorf("start %s: %w", p.cmd.Path, err)
	}
	return ended, nil
}

// await waits for the end, calls ended, and reaps.
func (p *process) await(ended func()) error {
	for p.pidfd >= 0 {
		err := unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	ended()
	err := p.cmd.Wait()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd) // a pidfd has nothing to flush
	}
	return err
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the child to end and kills it after grace. It returns when it is reaped.
func (p *process) stop(grace time.Duration) {
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
	_ = p.cmd.Process.Kill() // likewise
	<-p.done
}

// lines logs what a child writes, line by line. Envoy's own level names decide
// the level; lines without one are information. A very long line is cut.
func lines(ctx context.Context, log *slog.Logger) io.WriteCloser {
	r, w := io.Pipe()
	go func() { // ends when the child's output does
		in := bufio.NewReaderSize(r, 4096)
		for {
			line, err := in.ReadSlice('\n')
			if text := strings.TrimRight(string(line), "\r\n"); text != "" {
				log.Log(ctx, lineLevel(text), text)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				_ = r.CloseWithError(err) // so that no writer blocks
				return
			}
		}
	}()
	return w
}

func lineLevel(line string) slog.Level {
	for name, level := range map[string]slog.Level{
		"[error]": slog.LevelError, "[critical]": slog.LevelError, "[warning]": slog.LevelWarn,
		"[debug]": slog.LevelDebug, "[trace]": slog.LevelDebug,
	} {
		if strings.Contains(line, name) {
			return level
		}
	}
	return slog.LevelInfo
}
