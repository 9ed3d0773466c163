package sandbox

import (
	"context"
	"time"
)

// BuiltinNames are those that a policy may call.
var BuiltinNames = builtinNames

// IsSlow reports whether an evaluation that has made steps, and work in builtins, counts
// as slow after a time.
func IsSlow(steps, work int, after time.Duration) bool {
	b := New(context.Background(), MaxTime, MaxSteps, nil)
	b.left -= steps
	b.work = work
	return b.slow(after)
}
