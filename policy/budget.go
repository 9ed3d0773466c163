package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// budget stops an evaluation that takes too many steps or too long. The
// evaluator asks it before each expression, and slow builtins in their loops,
// all from the evaluating goroutine; that is cheaper than the goroutine and
// timer of a context's cancellation, and bounds steps on a fast machine too.
type budget struct {
	gaveUp   func() error // the call's context
	time     time.Duration
	cost     int
	deadline time.Time
	left     int
	over     bool
}

func newBudget(ctx context.Context, d time.Duration, cost int) *budget {
	return &budget{gaveUp: ctx.Err, time: d, cost: cost, deadline: time.Now().Add(d), left: cost}
}

// Cancel implements topdown.Cancel.
func (b *budget) Cancel() { b.over = true }

// Cancelled implements topdown.Cancel. The clock is read every 16th time:
// a builtin on a large header takes milliseconds.
func (b *budget) Cancelled() bool {
	if b.over {
		return true
	}
	b.left--
	b.over = b.left < 0 || b.left%16 == 0 && (b.gaveUp() != nil || time.Now().After(b.deadline))
	return b.over
}

// explain makes an error that may be recorded of the evaluator's.
func (b *budget) explain(err error) error {
	if b.over {
		if b.left < 0 {
			return fmt.Errorf("%w: more than %d steps", ErrLimit, b.cost)
		}
		if err := b.gaveUp(); err != nil {
			return fmt.Errorf("evaluate: %w", err)
		}
		return fmt.Errorf("%w: more than %s", ErrLimit, b.time)
	}
	var te *topdown.Error
	if !errors.As(err, &te) {
		return &Error{Code: "internal error"}
	}
	out := &Error{Code: te.Code}
	if te.Location != nil {
		out.File, out.Line = te.Location.File, te.Location.Row
	}
	return out
}
