package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os/exec"
	"runtime"
	"slices"
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

// maxLine is where a child's line is cut.
const maxLine = 16 << 10

// lines gives what a child writes to use, line by line.
func lines(use func(string)) io.WriteCloser {
	r, w := io.Pipe()
	go func() { // ends when the child's output does
		in := bufio.NewReaderSize(r, maxLine)
		for {
			line, err := in.ReadSlice('\n')
			if text := strings.TrimRight(string(line), "\r\n"); text != "" {
				use(text)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				_ = r.CloseWithError(err) // so that no writer blocks
				return
			}
		}
	}()
	return w
}

// envoyLine logs a line of Envoy's by the level that it begins with.
func envoyLine(ctx context.Context, log *slog.Logger, line string) {
	levels := map[string]slog.Level{
		"[error]": slog.LevelError, "[critical]": slog.LevelError, "[warning]": slog.LevelWarn, "[info]": slog.LevelInfo,
		"[debug]": slog.LevelDebug, "[trace]": slog.LevelDebug,
	}
	name, text, _ := strings.Cut(line, " ")
	if level, ok := levels[name]; ok {
		log.Log(ctx, level, text)
		return
	}
	log.InfoContext(ctx, line)
}

// ownLine logs a line that a process of ours wrote as JSON. What is not, such as
// a panic, is an error.
func ownLine(ctx context.Context, log *slog.Logger, line string) {
	var record map[string]any
	if json.Unmarshal([]byte(line), &record) != nil {
		log.ErrorContext(ctx, line)
		return
	}
	var level slog.Level
	if text, _ := record[slog.LevelKey].(string); level.UnmarshalText([]byte(text)) != nil {
		level = slog.LevelError
	}
	message, _ := record[slog.MessageKey].(string)
	var attrs []slog.Attr
	for _, k := range slices.Sorted(maps.Keys(record)) {
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			attrs = append(attrs, slog.Any(k, record[k]))
		}
	}
	log.LogAttrs(ctx, level, message, attrs...)
}

// restarts is how long a process that ended is left before it is started again:
// from first to most, doubled each time, and anew after one that lived for settled.
type restarts struct{ first, most, settled, next time.Duration }

func (r *restarts) after(lived time.Duration) time.Duration {
	if r.next == 0 || lived > r.settled {
		r.next = r.first
	}
	pause := r.next
	r.next = min(2*pause, r.most)
	return pause
}
