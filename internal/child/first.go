package child

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// First is what the first process of a container does for the program that the container is
// for: it starts it, and again when it crashed, hands signals on, ends with its exit code, and
// reaps what other processes leave behind. Unlike a child by [Start] the program has all that
// this process has: it is this process, continued.
type First struct {
	Path string
	Args []string // with its name
	// Grace is what it has to end when ctx has ended; then it is killed.
	Grace time.Duration
	// Again is asked when it has ended by itself: whether it is started again, and when.
	Again func(code int, ran time.Duration) (pause time.Duration, again bool)
	Log   *slog.Logger
}

// orphanTime is how long the processes that an ended program left are waited for: the
// kernel kills those that it started by Start.
const orphanTime = 5 * time.Second

// Run runs the program until it has ended for good, and returns its exit code; 128 and the
// signal's number where one ended it. Signals that come by the channel are handed on.
func (f First) Run(ctx context.Context, signals <-chan os.Signal) (code int, err error) {
	// What outlives its parent comes to us, also where we are not the first process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	for {
		begun := time.Now()
		code, err := f.once(ctx, signals)
		if err != nil || ctx.Err() != nil {
			return code, err
		}
		pause, again := f.Again(code, time.Since(begun))
		if !again {
			return code, nil
		}
		f.Log.ErrorContext(ctx, "it ended, and is started again", slog.Any("program", f.Args), slog.Int("exit_code", code), slog.Duration("pause", pause))
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return code, nil
		}
	}
}

// once runs it once.
func (f First) once(ctx context.Context, signals <-chan os.Signal) (code int, err error) {
	type running struct {
		pidfd int
		err   error
	}
	started, ended := make(chan running), make(chan int)
	go func() { // ends with the program; so does its thread, with which the kernel kills the program
		runtime.LockOSThread()
		pidfd := -1
		pid, err := syscall.ForkExec(f.Path, f.Args, &syscall.ProcAttr{ //nolint:gosec // the caller's choice, as of Start
			Env: os.Environ(), Files: []uintptr{0, 1, 2},
			Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
		})
		started <- running{pidfd, err}
		if err == nil {
			ended <- reap(pid)
		}
	}()
	r := <-started
	if r.err != nil {
		return 0, fmt.Errorf("start %s: %w", f.Path, r.err)
	}
	defer func() { _ = unix.Close(r.pidfd) }()                                   // a pidfd has nothing to flush
	send := func(s unix.Signal) { _ = unix.PidfdSendSignal(r.pidfd, s, nil, 0) } // it may have ended
	done, kill := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case code := <-ended:
			return code, nil
		case s := <-signals:
			if s, ok := s.(syscall.Signal); ok {
				send(s)
			}
		case <-done:
			send(unix.SIGTERM)
			t := time.NewTimer(f.Grace)
			defer t.Stop()
			done, kill = nil, t.C
		case <-kill:
			f.Log.ErrorContext(ctx, "it does not end in time, and is killed", slog.Any("program", f.Args), slog.Duration("grace", f.Grace))
			send(unix.SIGKILL)
		}
	}
}

// reap waits for a child and for everybody else who ends meanwhile, and then, for a while, for
// those whom it left. It returns the child's exit code.
func reap(pid int) (code int) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // there is nobody, and so it is not there either
			return code
		case got == pid && ws.Exited():
			reapLeft()
			return ws.ExitStatus()
		case got == pid && ws.Signaled():
			reapLeft()
			return 128 + int(ws.Signal())
		}
	}
}

func reapLeft() {
	for begun := time.Now(); time.Since(begun) < orphanTime; {
		got, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR): // nobody is left
			return
		case got == 0:
			time.Sleep(10 * time.Millisecond)
		}
	}
}
