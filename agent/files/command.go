package files

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"signet.example/internal/child"
	"signet.example/internal/plain"
	"signet.example/internal/private"
	"signet.example/internal/retry"
)

const (
	// mostRunning bounds how many commands run at a time: a change of authorities is due
	// everywhere at once.
	mostRunning = 8
	// mostSaid is how much of what a command wrote is told of.
	mostSaid = 300
	// stopGrace is how long a command that is over its time may take to end by itself.
	stopGrace = 2 * time.Second
)

// commandPath is where a command finds other programs.
const commandPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command is what is run after a change of one folder.
type command struct {
	pending bool // a change that no command has been told of yet
	failed  string
	tries   retry.Tries
	next    time.Time
}

// due has the command run.
func (c *command) due() { c.pending, c.next = true, time.Time{} }

func (c *command) problem() string { return c.failed }

// running is a command that was started.
type running struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // set before done is closed
	said string
}

// stop ends the command of a folder, which Run goes on to wait for.
func (f *Folders) stop(name string) {
	if r := f.runs[name]; r != nil {
		r.stop()
	}
}

// runCommand runs what a folder's change is to be followed by, and returns when to look again.
func (f *Folders) runCommand(ctx context.Context, o *folder, now time.Time) time.Duration {
	c, name := &o.command, o.entry.Files.Command
	f.ended(ctx, o, now)
	if name == "" {
		*c = command{}
		return every
	}
	if !c.pending || f.runs[o.name] != nil || len(f.runs) >= mostRunning {
		return every // its end wakes
	}
	if now.Before(c.next) {
		return c.next.Sub(now)
	}
	i := slices.IndexFunc(f.Commands, func(one Command) bool { return one.Name == name })
	if i < 0 {
		c.failed = fmt.Sprintf("files.commands of the agent's configuration has no %q: add it there, with what is to run, and restart the agent", name)
		return every
	}
	c.pending = false
	f.start(ctx, o, f.Commands[i])
	return every
}

// ended files how the last command of a folder ended.
func (f *Folders) ended(ctx context.Context, o *folder, now time.Time) {
	r := f.runs[o.name]
	if r == nil {
		return
	}
	select {
	case <-r.done:
	default:
		return
	}
	delete(f.runs, o.name)
	c := &o.command
	if r.err == nil {
		f.Metrics.commands.WithLabelValues("ok").Inc()
		f.Log.InfoContext(ctx, "credential folder: command succeeded", slog.String("folder", o.name), slog.String("command", o.entry.Files.Command))
		c.failed = ""
		c.tries.Succeeded()
		return
	}
	f.Metrics.commands.WithLabelValues("failed").Inc()
	c.failed = fmt.Sprintf("command %s: %v", o.entry.Files.Command, r.err)
	if r.said != "" {
		c.failed += ": " + r.said
	}
	if !c.pending { // a change that came meanwhile is told of at once
		c.pending, c.next = true, now.Add(c.tries.Failed(0, r.err))
	}
	if c.tries.Doubled() {
		f.Log.WarnContext(ctx, "credential folder: command failed", slog.String("folder", o.name), slog.String("command", o.entry.Files.Command), slog.Any("err", r.err), slog.String("said", r.said))
	}
}

// start runs a command as the folder's owner, without privileges and for a bounded time.
func (f *Folders) start(ctx context.Context, o *folder, c Command) {
	o.command.tries.Policy = again
	ctx, stop := context.WithCancel(ctx)
	r := &running{stop: stop, done: make(chan struct{})}
	f.runs[o.name] = r
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	said := child.NewTail(io.Discard)
	spec := child.Spec{
		Path: c.Run[0], Args: c.Run[1:], Stdout: said, Stderr: said, User: f.user(o.owner.UID),
		Env: []string{commandPath, "SPIFFE_CREDENTIAL_FOLDER=" + filepath.Join(f.Root.path, o.name), "SIGNET_SPIFFE_ID=" + o.entry.ID.String()},
	}
	f.waiting.Go(func() {
		defer f.wake.Wake()
		defer close(r.done)
		defer stop()
		r.err = run(ctx, spec, o.owner.UID, timeout)
		r.said = plain.Clip(strings.TrimSpace(said.Text()), mostSaid)
	})
}

// run runs one command to its end.
func run(ctx context.Context, spec child.Spec, uid uint32, timeout time.Duration) error {
	if err := private.Guarded(spec.Path, uid); err != nil { // who could change it would act as the owner
		return err
	}
	p, err := child.Start(spec)
	if err != nil {
		return err
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.Done():
		return p.Err()
	case <-t.C:
		p.Stop(stopGrace)
		return fmt.Errorf("killed after its timeout of %s", timeout)
	case <-ctx.Done():
		p.Stop(stopGrace)
		return ctx.Err()
	}
}

// user is whom a command runs as, nil for the agent's own.
func (f *Folders) user(uid uint32) *child.User {
	for _, u := range f.Owners {
		if u.UID == uid {
			return &u
		}
	}
	return nil
}
