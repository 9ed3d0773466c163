package svids

import (
	"time"

	"signet.example/internal/retry"
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

	// What failed is tried again after retryFirst, doubled each time up to retryShare
	// of a lifetime and never beyond retryMost: a renewal that fails once still has
	// time to succeed, and a fleet does not fall on a server that has just come back.
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
	retryShare = 0.025
	// retryNew bounds the delay where there is no SVID yet: somebody waits for it.
	retryNew = 2 * time.Second
	// retryJitter is the share of a delay that is random: with all of it some would
	// try again at once.
	retryJitter = 0.5
)

// Asking is how the server is asked again for what somebody waits for: a join, a
// stream, a connection. One that stood for longer than Settled had not failed.
var Asking = retry.Policy{First: retryFirst, Most: retryNew, Jitter: retryJitter, Settled: retryNew}

// Renewing is how an SVID of this lifetime is asked for again; with 0 there is none yet.
func Renewing(lifetime time.Duration) retry.Policy {
	if lifetime == 0 {
		return Asking
	}
	most := min(retryMost, max(retryFirst, time.Duration(float64(lifetime)*retryShare)))
	return retry.Policy{First: retryFirst, Most: most, Jitter: retryJitter}
}

// renewalDue is when an SVID issued at issued, good until notAfter, is renewed.
// random is in [0, 1): it spreads the renewals of SVIDs that began together.
func renewalDue(issued, notAfter time.Time, random float64) time.Time {
	share := renewFrom + (renewTo-renewFrom)*random
	return issued.Add(time.Duration(float64(notAfter.Sub(issued)) * share))
}

// returnDelay is how long a renewal that failed waits once the server is there
// again, by how long the SVID still lives: every agent of a fleet has waited for
// this moment, and what has time takes it.
func returnDelay(left time.Duration, random float64) time.Duration {
	most := min(retryMost, max(0, time.Duration(float64(left)*retryShare)))
	return retryFirst + time.Duration(float64(most)*random)
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
