package svids

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// When an SVID is renewed, and what failed is tried again. Everything here is a pure function of its arguments,
// so that the promise can be tested: an identity that is kept has at any
// instant at least three quarters of its lifetime left (45 of 60 minutes), as
// long as the server answers.

const (
	// renewFrom and renewTo bound the part of its life after which an SVID is
	// renewed: 20 % ± 5 %. The last hundredth of that window is not drawn: it is
	// for the answer, which must be there before the quarter is over.
	renewFrom = 0.15
	renewTo   = 0.24

	// clockCheck is the longest that is slept before the clocks are looked at again.
	// Timers stand still while the host sleeps, and nobody is told when the wall
	// clock is set.
	clockCheck = 5 * time.Second

	// Retries begin at retryFirst and double, up to retryShare of a lifetime but
	// never beyond retryMost: a renewal that fails once still has time to succeed,
	// and a fleet does not fall on a server that has just come back.
	RetryFirst = 100 * time.Millisecond
	RetryMost  = 30 * time.Second
	retryShare = 0.025
	// RetryNew bounds the delay where there is no SVID yet: somebody waits for it.
	RetryNew = 2 * time.Second
)

// renewalDue is when an SVID issued at issued, good until notAfter, is renewed.
// random is in [0, 1): it spreads the renewals of SVIDs that began together.
func renewalDue(issued, notAfter time.Time, random float64) time.Time {
	share := renewFrom + (renewTo-renewFrom)*random
	return issued.Add(time.Duration(float64(notAfter.Sub(issued)) * share))
}

// RetryDelay is how long to wait after the given number of failures (1 is the
// first) for an SVID with this lifetime; 0 means that there is none yet.
func RetryDelay(failures int, lifetime time.Duration, random float64) time.Duration {
	most := RetryNew
	if lifetime > 0 {
		most = min(RetryMost, max(RetryFirst, time.Duration(float64(lifetime)*retryShare)))
	}
	d := RetryFirst
	for range min(failures, 32) - 1 {
		if d = 2 * d; d >= most {
			break
		}
	}
	// Half of the delay is random: full jitter would retry at once now and then.
	d = min(d, most)
	return d/2 + time.Duration(float64(d)/2*random)
}

// RetryAfter is how long a server that limits us says to wait, where it does.
func RetryAfter(err error) (time.Duration, bool) {
	if status.Code(err) != codes.ResourceExhausted {
		return 0, false
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok && info.GetRetryDelay() != nil {
			return min(RetryNew, max(RetryFirst, info.GetRetryDelay().AsDuration())), true
		}
	}
	return 0, false
}

// returnDelay is how long a renewal that failed waits once the server is there
// again, by how long the SVID still lives: every agent of a fleet has waited for
// this moment, and what has time takes it.
func returnDelay(left time.Duration, random float64) time.Duration {
	most := min(RetryMost, max(0, time.Duration(float64(left)*retryShare)))
	return RetryFirst + time.Duration(float64(most)*random)
}

// Reached reports whether a deadline has come by either of the kernel's clocks: the
// wall clock alone goes on while the host sleeps, the monotonic one alone when
// the wall clock is set back.
func Reached(deadline, now time.Time) bool {
	return !now.Before(deadline) || !now.Round(0).Before(deadline.Round(0))
}

// Until is how long to sleep for a deadline before looking at the clocks again.
func Until(deadline time.Time) time.Duration { return min(clockCheck, time.Until(deadline)) }

// coalesce is how much earlier than its time an SVID may be renewed so that it
// shares a request with another one that is due now.
func coalesce(lifetime time.Duration) time.Duration {
	return min(time.Second, lifetime/100)
}
