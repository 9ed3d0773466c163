package authzproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/api"
	"signet.example/authz"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
)

const (
	// An evaluation has 100 ms of its thread, and looks at that after each step, or lets others
	// go on and looks then. One that has done neither after ten times that is in a step that
	// nothing else can end. How long it has been under way does not matter: one that is merely
	// late ends by itself (sandbox.MostTimes).
	evaluationTicks = 10
	evaluationTick  = 100 * time.Millisecond
	// idleTick is how soon an evaluation is seen where there was none.
	idleTick = 250 * time.Millisecond
	// stuckCPU is the processor time that it must have used itself in that step: half of one
	// processor. Without it, the process is frozen, swapped out, gets no processor or is busy
	// with others, which no evaluation brings about.
	stuckCPU = evaluationTicks * evaluationTick / 2
	// stopFirst is how long an evaluation that ended the process is not made, twice
	// as long each time that it does so again, and at most stopMost.
	stopFirst = time.Minute
	stopMost  = time.Hour
	// suspectFor is how long evaluations that were under way at an end are made one
	// at a time.
	suspectFor = 10 * time.Minute
	// maxStopped bounds what is remembered, whatever the process says of itself.
	maxStopped = 1024
	// exitRuntime is how the Go runtime exits when it fails: out of memory, out of
	// stack, a panic. No signal from outside makes the authz process do so (RunAuthz).
	exitRuntime = 2
)

// errStuck ends an authz process in which an evaluation does not end.
type errStuck struct{ authz.Evaluation }

func (e errStuck) Error() string {
	return fmt.Sprintf("an evaluation for %s under policy revision %s is in a step that did not end within %s", e.Destination, e.Revision, evaluationTicks*evaluationTick)
}

// sight is an evaluation as it was looked at.
type sight struct {
	entry
	looks int
	used  time.Duration // of its thread's processor time, since the first look
	last  time.Duration // processor time of its thread
}

// watch ends when one step of an evaluation has been under way for too long. It counts looks,
// not time, and what the evaluation's own thread has used: a host that slept, or was too
// busy to look, has not made anything slow, nor has a process that is frozen, or busy
// with what others ask of it. cpu is the processor time that a thread has used.
func watch(ctx context.Context, j *journal, cpu func(thread uint32) time.Duration) error {
	var seen map[int]sight
	tick := idleTick
	for watched.Sleep(ctx, tick) {
		now := j.entries()
		next := make(map[int]sight, len(now))
		for slot, e := range now {
			s, ok := seen[slot]
			if !ok || s.turn != e.turn || s.Evaluation != e.Evaluation {
				s = sight{}
			}
			ran := cpu(e.thread)
			if s.looks > 0 && s.thread == e.thread && e.thread != noThread {
				s.used += ran - s.last
			}
			s.entry, s.last = e, ran
			s.looks++
			if s.looks > evaluationTicks && s.used >= stuckCPU {
				return errStuck{s.Evaluation}
			}
			next[slot] = s
		}
		seen = next
		if tick = evaluationTick; len(now) == 0 {
			tick = idleTick
		}
	}
	return nil
}

// CPUOf returns the processor time that a thread of a process has used; 0 is the whole process. Where the kernel
// does not tell (proc(5): schedstat), it is that of the whole process, whoever's it is, and
// where not even that, time itself: what hangs is then taken to be busy.
func CPUOf(pid int) func(thread uint32) time.Duration {
	begun := time.Now()
	clock := ^int32(pid)<<3 | 2 //nolint:gosec // clock_getcpuclockid(3): a pid has 22 bits
	return func(thread uint32) time.Duration {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, thread)); err == nil {
			ran, _, _ := strings.Cut(string(b), " ")
			if ns, err := strconv.ParseInt(ran, 10, 64); err == nil {
				return time.Duration(ns)
			}
		}
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return time.Since(begun)
		}
		return time.Duration(t.Nano())
	}
}

// blame is what ended authz processes: evaluations that are not made for now, and
// those that may have been it.
type blame struct {
	of map[authz.Evaluation]verdict
}

// verdict is stopped or suspect.
type verdict struct {
	stopped bool
	until   time.Time
	times   int // that it was stopped
}

// stop is how long the last one was.
func (v verdict) stop() time.Duration { return min(stopFirst<<min(v.times-1, 16), stopMost) }

// learn draws the conclusion from the end of a process. underway is what it was
// evaluating. Only an end that an evaluation can bring about counts: the process was
// ended by us since one did not end, or its runtime failed. By a signal, ours or
// another's, or where it exits otherwise, what was under way was merely there. That
// is so for the kernel's OOM killer, too, whose choice may be for what others use; the
// process's own limit on its memory comes before where the host has as much.
func (b *blame) learn(err error, underway map[int]entry, now time.Time) (stopped []authz.Evaluation) {
	if stuck, ok := errors.AsType[errStuck](err); ok {
		return b.stop(stuck.Evaluation, now)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitRuntime {
		return nil
	}
	all := map[authz.Evaluation]bool{}
	for _, e := range underway {
		all[e.Evaluation] = true
	}
	// Of suspects one is made at a time: the one that was is what ended it. So is
	// the only one.
	for e := range all {
		if v, ok := b.of[e]; len(all) == 1 || ok && now.Before(v.until) {
			stopped = append(stopped, b.stop(e, now)...)
		}
	}
	if len(stopped) > 0 {
		return stopped
	}
	for e := range all {
		if v := b.of[e]; !v.stopped && len(b.of) < maxStopped {
			b.set(e, verdict{times: v.times, until: now.Add(suspectFor)})
		}
	}
	return nil
}

func (b *blame) stop(e authz.Evaluation, now time.Time) []authz.Evaluation {
	v, known := b.of[e]
	if v.stopped || !known && len(b.of) >= 2*maxStopped {
		return nil
	}
	v.stopped, v.times = true, v.times+1
	v.until = now.Add(v.stop())
	b.set(e, v)
	return []authz.Evaluation{e}
}

func (b *blame) set(e authz.Evaluation, v verdict) {
	if b.of == nil {
		b.of = map[authz.Evaluation]verdict{}
	}
	b.of[e] = v
}

// forget drops what is about revisions that nobody is stamped with any more, and what
// is over: one that was stopped is a suspect for twice as long, so that what it does
// next counts. It reports whether fewer are stopped.
func (b *blame) forget(needed map[string]bool, now time.Time) (fewer bool) {
	for e, v := range b.of {
		switch {
		case !needed[e.Revision]:
			delete(b.of, e)
		case now.Before(v.until):
			continue
		case v.stopped:
			b.of[e] = verdict{times: v.times, until: now.Add(max(suspectFor, 2*v.stop()))}
		default:
			delete(b.of, e)
		}
		fewer = fewer || v.stopped
	}
	return fewer
}

// wait is how long nothing is over, at least a second and at most stopMost.
func (b *blame) wait(now time.Time) time.Duration {
	wait := stopMost
	for _, v := range b.of {
		wait = min(wait, v.until.Sub(now))
	}
	return max(wait, time.Second)
}

// those are the stopped ones, or the suspects, and until when.
func (b *blame) those(stopped bool) map[authz.Evaluation]time.Time {
	all := map[authz.Evaluation]time.Time{}
	for e, v := range b.of {
		if v.stopped == stopped {
			all[e] = v.until
		}
	}
	return all
}

// stoppedFindings are the evaluations that were stopped, for `signet check`.
func stoppedFindings(stopped map[authz.Evaluation]time.Time) []*api.AgentFinding {
	var list []*api.AgentFinding
	for e, until := range stopped {
		list = append(list, &api.AgentFinding{Kind: api.AgentFinding_POLICY_STOPPED.Enum(), Text: fmt.Sprintf("every call to %s under policy revision %s is answered with an error until %s: an evaluation of it ended the authz process", e.Destination, e.Revision, plain.UTC(until))})
	}
	slices.SortFunc(list, func(a, b *api.AgentFinding) int { return strings.Compare(a.GetText(), b.GetText()) })
	return list
}
