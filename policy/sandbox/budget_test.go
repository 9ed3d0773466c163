package sandbox_test

import (
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
