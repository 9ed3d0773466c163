package sandbox_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"signet.example/policy/sandbox"
)

// TestAnEvaluationThatStoodStillIsNoSlowOne: on a busy machine it would wait behind
// those that are, and be refused.
func TestAnEvaluationThatStoodStillIsNoSlowOne(t *testing.T) {
	for _, c := range []struct {
		steps, work int
		after       time.Duration
		slow        bool
	}{
		{100, 10 << 10, 99 * time.Millisecond, false},
		{1000, 0, 99 * time.Millisecond, true},
		{1000, 0, time.Millisecond, false},
		{10, 200 << 10, 60 * time.Millisecond, true},
		{10, 300 << 10, time.Millisecond, true},
		{5000, 0, time.Millisecond, true},
	} {
		if got := sandbox.IsSlow(c.steps, c.work, c.after); got != c.slow {
			t.Errorf("%d steps, %d of work, after %s: slow %v", c.steps, c.work, c.after, got)
		}
	}
}

// In the lane, too, what the clock says is how busy the host is.
func TestWhoWaitsForTheLaneMayBeLateAndTheLaneRestsByWhatWasUsed(t *testing.T) {
	t.Parallel() // it stands still most of its time
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const most = 50 * time.Millisecond
	begin := func(lane sandbox.Lane) *sandbox.Budget {
		b := sandbox.New(sandbox.Yielding(t.Context(), func() {}), most, sandbox.MaxSteps, lane)
		for range 5000 { // which are slow
			if b.Cancelled() {
				break
			}
		}
		return b
	}
	spent, within := time.Duration(-1), time.Duration(0)
	lane := func(waits time.Duration) sandbox.Lane {
		return func(w time.Duration) func(time.Duration) {
			within = w
			time.Sleep(waits)
			return func(s time.Duration) { spent = s }
		}
	}
	for try := 0; ; try++ { // a host so busy that even the clock's bound is passed says nothing
		b := begin(lane(4 * most))
		late := b.Cancelled()
		b.Done()
		if !late && spent == 0 && within > 4*most {
			break
		}
		if try == 20 {
			t.Fatalf("who waited for its lane for %s was over its time, of which it had %s", 4*most, within)
		}
	}
	b := begin(lane((sandbox.MostTimes + 1) * most))
	if !b.Cancelled() {
		t.Error("it may take any time by the clock")
	}
	if b.Done(); spent <= 0 || spent >= most {
		t.Errorf("it used little, and its lane rests for %s", spent)
	}
	b = begin(func(time.Duration) func(time.Duration) { return nil })
	if err := b.Explain(nil); !b.Cancelled() || !errors.Is(err, sandbox.ErrLimit) || !strings.Contains(err.Error(), "are before it") {
		t.Errorf("its turn did not come: %v", err)
	}
}
