package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"time"

	"signet.example/authz"
)

const (
	// An evaluation has 100 ms and looks at the clock at each step. One that is still
	// under way after ten times that is in a step that nothing else can end.
	evaluationTicks = 10
	evaluationTick  = 100 * time.Millisecond
	// idleTick is how soon an evaluation is seen where there was none.
	idleTick = 250 * time.Millisecond
	// suspectFor is how long evaluations that were under way at an end are made one
	// at a time.
	suspectFor = 10 * time.Minute
	// maxStopped bounds what is remembered, whatever the process says of itself.
	maxStopped = 1024
)

// errStuck ends an authz process in which an evaluation does not end.
type errStuck struct{ authz.Evaluation }

func (e errStuck) Error() string {
	return fmt.Sprintf("an evaluation for %s under policy revision %s did not end within %s", e.Destination, e.Revision, evaluationTicks*evaluationTick)
}

// watch ends when an evaluation has been under way for too long. It counts looks, not
// time: a host that slept, or was too busy to look, has not made anything slow.
func watch(ctx context.Context, j *journal) error {
	seen := map[int]entry{}
	looks := map[int]int{}
	tick := idleTick
	for sleep(ctx, tick) {
		now := j.entries()
		oldest, most := entry{}, 0
		for slot := range journalSlots {
			e, ok := now[slot]
			switch {
			case !ok:
				delete(looks, slot)
			case seen[slot] == e:
				looks[slot]++
			default:
				looks[slot] = 1
			}
			if looks[slot] > most {
				oldest, most = e, looks[slot]
			}
		}
		if most > evaluationTicks {
			return errStuck{oldest.Evaluation}
		}
		seen = now
		if tick = evaluationTick; len(now) == 0 {
			tick = idleTick
		}
	}
	return nil
}

// blame is what ended authz processes: evaluations that are not made any more, and
// those that may have been it.
type blame struct {
	stopped map[authz.Evaluation]bool
	suspect map[authz.Evaluation]time.Time // until when
}

// learn draws the conclusion from the end of a process. underway is what it was
// evaluating.
func (b *blame) learn(err error, underway map[int]entry, now time.Time) (stopped []authz.Evaluation) {
	if stuck, ok := errors.AsType[errStuck](err); ok {
		return b.stop(stuck.Evaluation)
	}
	all := map[authz.Evaluation]bool{}
	for _, e := range underway {
		all[e.Evaluation] = true
	}
	// Of suspects one is made at a time: the one that was is what ended it.
	for e := range all {
		if until, ok := b.suspect[e]; ok && now.Before(until) {
			stopped = append(stopped, b.stop(e)...)
		}
	}
	if len(stopped) > 0 {
		return stopped
	}
	// The runtime ended it itself, as for want of memory, over the only one.
	var exit *exec.ExitError
	if len(all) == 1 && errors.As(err, &exit) && exit.ExitCode() == 2 {
		for e := range all {
			return b.stop(e)
		}
	}
	for e := range all {
		if b.suspect == nil {
			b.suspect = map[authz.Evaluation]time.Time{}
		}
		if len(b.suspect) < maxStopped {
			b.suspect[e] = now.Add(suspectFor)
		}
	}
	return nil
}

func (b *blame) stop(e authz.Evaluation) []authz.Evaluation {
	if b.stopped == nil {
		b.stopped = map[authz.Evaluation]bool{}
	}
	delete(b.suspect, e)
	if b.stopped[e] || len(b.stopped) >= maxStopped {
		return nil
	}
	b.stopped[e] = true
	return []authz.Evaluation{e}
}

// forget drops what is about revisions that nobody is stamped with any more, and
// suspicions that are over. It reports whether a stopped one was dropped.
func (b *blame) forget(needed map[string]bool, now time.Time) bool {
	before := len(b.stopped)
	maps.DeleteFunc(b.stopped, func(e authz.Evaluation, _ bool) bool { return !needed[e.Revision] })
	maps.DeleteFunc(b.suspect, func(e authz.Evaluation, until time.Time) bool { return !needed[e.Revision] || now.After(until) })
	return len(b.stopped) != before
}

func (b *blame) suspects() map[authz.Evaluation]bool {
	all := map[authz.Evaluation]bool{}
	for e := range b.suspect {
		all[e] = true
	}
	return all
}

// stoppedFindings tells them for `signet check`.
func stoppedFindings(stopped []authz.Evaluation) []string {
	var list []string
	for _, e := range stopped {
		list = append(list, fmt.Sprintf("policy-stopped: every call to %s under policy revision %s is answered with an error: an evaluation of it ended the authz process", e.Destination, e.Revision))
	}
	slices.Sort(list)
	return list
}
