// Package retry holds the one policy of waiting between the tries of one thing:
// the first delay, how it grows, how much of it is random, when it begins anew, and
// that a server which limits us is taken at its word. What a caller adds is figures.
//
// # Concurrency
//
// A Policy is a value. Tries belong to the one goroutine that tries.
package retry

import (
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Policy is how long to wait between tries.
type Policy struct {
	// First is the delay after one failure. It doubles with each further one in a
	// row, up to Most.
	First, Most time.Duration
	// Jitter is the share of each delay that is random, 0 to 1: it spreads tries
	// that began together, as those of a fleet whose server came back. At 1 some
	// would try again at once.
	Jitter float64
	// Settled is how long a try must last for its end to be the first failure
	// again; with 0 it is that of Succeeded alone.
	Settled time.Duration
}

// Delay is how long to wait after this many failures in a row, at least 1. random
// is in [0, 1).
func (p Policy) Delay(failures int, random float64) time.Duration {
	d := p.First
	for n := 1; n < failures && d < p.Most; n++ {
		d *= 2
	}
	d = min(d, p.Most)
	return d - time.Duration(float64(d)*p.Jitter*(1-random))
}

// Next is how long to wait after this many failures in a row, of which err was the
// last; it may be nil. A server that limits us is taken at its word.
func (p Policy) Next(failures int, err error) time.Duration {
	if d, asked := p.Asked(err); asked {
		return d
	}
	return p.Delay(failures, rand.Float64())
}

// LimitedError is of a server that limits us and does not speak gRPC.
type LimitedError struct {
	After time.Duration // that it says to wait; 0 where it says nothing
	Err   error
}

// Error implements error.
func (e *LimitedError) Error() string { return e.Err.Error() }

// Unwrap returns what the server said.
func (e *LimitedError) Unwrap() error { return e.Err }

// Asked is how long a server that limits us says to wait (RetryInfo, LimitedError), within the
// bounds of the policy: it neither makes us press on nor stay away.
func (p Policy) Asked(err error) (time.Duration, bool) {
	if limited, ok := errors.AsType[*LimitedError](err); ok && limited.After > 0 {
		return min(p.Most, max(p.First, limited.After)), true
	}
	if status.Code(err) != codes.ResourceExhausted {
		return 0, false
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok && info.GetRetryDelay() != nil {
			return min(p.Most, max(p.First, info.GetRetryDelay().AsDuration())), true
		}
	}
	return 0, false
}

// Connect is the policy for the connections that gRPC makes by itself, each of
// which may take this long.
func (p Policy) Connect(deadline time.Duration) grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: p.First, Multiplier: 2, Jitter: p.Jitter, MaxDelay: p.Most},
		MinConnectTimeout: deadline,
	}
}

// Tries are the tries of one thing, one after the other.
type Tries struct {
	Policy

	failures int
}

// Failed notes the end of a try that lasted so long, and returns how long to wait
// before the next. err may be nil: a connection or a process that ended.
func (t *Tries) Failed(lasted time.Duration, err error) time.Duration {
	if t.Settled > 0 && lasted > t.Settled {
		t.failures = 0
	}
	t.failures++
	return t.Next(t.failures, err)
}

// Succeeded makes the next failure the first.
func (t *Tries) Succeeded() { t.failures = 0 }

// Doubled reports whether there have been 1, 2, 4, 8 … failures: with a line for each
// of these a log shows a long outage in a few lines.
func (t *Tries) Doubled() bool { return t.failures&(t.failures-1) == 0 }
