package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
	"golang.org/x/sys/unix"
)

// Limits of one evaluation; what passes them is an error, which denies.
const (
	MaxTime   = 100 * time.Millisecond // of a processor, where its thread is its own: others may have them meanwhile
	MaxSteps  = 100_000                // expressions evaluated
	MostTimes = 40                     // as long by the clock, on a host whose processors others have: less than whoever asks waits
	// How long an evaluation runs before others are let go on.
	giveWay = 200 * time.Microsecond // of this process
	giveCPU = 500 * time.Microsecond // of others, where it is slow
)

// When an evaluation counts as slow. Most take less than a tenth of the first, which is some milliseconds, and of the
// second, which is what a call for 50,000 numbers costs three times: what is spent before the lane, whoever repeats a
// request spends as often as they like. The third is for what is not counted, and late: on a busy machine any evaluation
// may stand still for a while, and one that has made few steps by then did nothing else. In the lane it would wait for
// those that cost.
const (
	slowSteps = 4000
	slowWork  = 1 << 18
	slowAfter = MaxTime / 2
	fewSteps  = slowSteps / 10
	fewWork   = slowWork / 10
)

// ErrLimit: an evaluation took more time or steps than it may.
var ErrLimit = errors.New("the policy takes too long")

// Error is an evaluation error. It tells where and of what kind, and leaves the evaluator's message out: that
// quotes values of the request.
type Error struct {
	File string
	Line int
	Code string
}

// Error implements error.
func (e *Error) Error() string {
	if e.File == "" {
		return "evaluation failed: " + e.Code
	}
	return fmt.Sprintf("%s:%d: evaluation failed: %s", e.File, e.Line, e.Code)
}

// Budget stops an evaluation that takes too many steps, too long, or gives its builtins too much. The evaluator
// asks it before each expression, and slow builtins in their loops, all from the evaluating goroutine; that is
// cheaper than the goroutine and timer of a context's cancellation, and bounds steps on a fast machine too.
type Budget struct {
	gaveUp    func() error // the call's context
	letOthers func()
	time      time.Duration
	steps     int
	begun     time.Time
	left      int
	builtins  int // bytes that builtins may still be given
	work      int // of builtins, so far
	over      bool

	gaveWay, gaveCPU time.Duration // when it did so last, since begun

	own         bool          // has its thread to itself
	ran, thread time.Duration // what it had used of a processor when it came to its thread, and what that had

	lane     Lane
	leave    func(spent time.Duration) // of the lane that it is in, else nil
	unturned bool                      // its turn in the lane did not come
}

// Lane keeps slow evaluations out of the way of others: it waits until this one may go on, for
// within at most, and returns what must be called when it has ended, with what it has had of a
// processor where it passed a limit, else with 0; nil where its turn did not come. A nil Lane lets
// all go on.
type Lane func(within time.Duration) (leave func(spent time.Duration))

// yielding is the key of what lets others go on.
type yielding struct{}

// Yielding has an evaluation let others of the process go on by yield, in the place of runtime.Gosched: for whom
// its thread is its own, so that its time is what that uses.
func Yielding(ctx context.Context, yield func()) context.Context {
	return context.WithValue(ctx, yielding{}, yield)
}

// New is the budget of one evaluation, which begins now. Done must be called when it has ended.
func New(ctx context.Context, d time.Duration, steps int, lane Lane) *Budget {
	b := &Budget{gaveUp: ctx.Err, letOthers: runtime.Gosched, time: d, steps: steps, begun: time.Now(), left: steps, builtins: maxBuiltins, lane: lane}
	if yield, ok := ctx.Value(yielding{}).(func()); ok {
		b.letOthers, b.own, b.thread = yield, true, threadTime()
	}
	return b
}

// threadTime is what this thread has used of the processors.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // clock_gettime(2): Linux always has it
	return time.Duration(t.Nano())
}

// used is what the evaluation has had of a processor, where so much time went by.
func (b *Budget) used(took time.Duration) time.Duration {
	if b.own {
		return b.ran + threadTime() - b.thread
	}
	return took
}

// lasts is how long the evaluation may take by the clock.
func (b *Budget) lasts() time.Duration {
	if b.own {
		return MostTimes * b.time
	}
	return b.time
}

// Cancel implements topdown.Cancel.
func (b *Budget) Cancel() { b.over = true }

// Cancelled implements topdown.Cancel. The clock is read each time: where each step takes twice as long as the one
// before, the sixteenth from here would never end.
func (b *Budget) Cancelled() bool {
	if b.over {
		return true
	}
	b.left--
	took := time.Since(b.begun)
	if b.lane != nil && b.leave == nil && b.slow(took) {
		b.leave = b.lane(b.lasts() - took)
		if b.unturned = b.leave == nil; b.unturned {
			b.over = true
			return true
		}
		took = time.Since(b.begun)
	}
	if took-b.gaveWay > giveWay {
		took = b.yield(took)
	}
	b.over = b.left < 0 || took > b.time && (took > b.lasts() || b.used(took) > b.time) || b.left%16 == 0 && b.gaveUp() != nil
	return b.over
}

// yield lets others go on, and returns how long the evaluation has taken by then. Go would let it run for 10 ms.
// Where it is known to be slow, other processes are let go on as well: the kernel would let it run for a slice of
// some milliseconds, and whoever asks is such a process. Otherwise it keeps its slice: on a busy machine, whoever
// gives one up waits for those of all others.
func (b *Budget) yield(took time.Duration) time.Duration {
	b.ran = b.used(took)
	b.letOthers()
	b.thread = threadTime() // which may be another thread's now
	if b.leave != nil && took-b.gaveCPU > giveCPU {
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // sched_yield(2) always succeeds
		b.gaveCPU = took
	}
	b.gaveWay = time.Since(b.begun)
	return b.gaveWay
}

// slow reports whether the evaluation costs much. It goes by what was done: on a busy machine any may take a few
// milliseconds.
func (b *Budget) slow(took time.Duration) bool {
	steps, work := b.steps-b.left, max(b.work, maxBuiltins-b.builtins)
	return steps > slowSteps || work > slowWork || took > slowAfter && (steps > fewSteps || work > fewWork) && b.used(took) > slowAfter
}

// charge takes the cost of a builtin's call.
func (b *Budget) charge(bytes, work int) error {
	b.work += work
	if b.builtins -= bytes; b.builtins < 0 {
		return fmt.Errorf("%w: all calls of this evaluation together more than %d MiB", errFence, maxBuiltins>>20)
	}
	return nil
}

// Done must be called when the evaluation has ended.
func (b *Budget) Done() {
	if b.leave == nil {
		return
	}
	var spent time.Duration
	if b.over {
		spent = min(b.used(time.Since(b.begun)), b.time)
	}
	b.leave(spent)
	b.leave = nil
}

// Explain makes an error that may be recorded of the evaluator's.
func (b *Budget) Explain(err error) error {
	if b.over {
		if b.left < 0 {
			return fmt.Errorf("%w: more than %d steps", ErrLimit, b.steps)
		}
		if err := b.gaveUp(); err != nil {
			return fmt.Errorf("evaluate: %w", err)
		}
		if b.unturned {
			return fmt.Errorf("%w: too many slow evaluations for the same destination, or all, are before it", ErrLimit)
		}
		return fmt.Errorf("%w: more than %s", ErrLimit, b.time)
	}
	var te *topdown.Error
	if !errors.As(err, &te) {
		return &Error{Code: "internal error"}
	}
	out := &Error{Code: te.Code}
	if te.Code == fenceCode {
		out.Code = te.Message // it has the builtin and the limit, and nothing of the request
	}
	if te.Location != nil {
		out.File, out.Line = te.Location.File, te.Location.Row
	}
	return out
}
