package retry_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/internal/retry"
)

const ms = time.Millisecond

func limited(t *testing.T, after time.Duration) error {
	t.Helper()
	s, err := status.New(codes.ResourceExhausted, "too many requests").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Errorf("attest: %w", s.Err())
}

// The clock is synctest's: a try lasts as long as its row says, to the nanosecond.
func TestTriesWaitLongerEachTimeUntilOneLasts(t *testing.T) {
	t.Parallel()
	type try struct {
		lasts time.Duration
		err   error
		waits time.Duration
	}
	down := errors.New("no route")
	exact := retry.Policy{First: 100 * ms, Most: time.Second, Settled: 10 * time.Second}
	for name, c := range map[string]struct {
		policy retry.Policy
		tries  []try
	}{
		"doubled up to the most": {exact, []try{{0, down, 100 * ms}, {0, down, 200 * ms}, {0, down, 400 * ms}, {0, down, 800 * ms}, {0, down, time.Second}, {0, down, time.Second}}},
		"anew after one that lasted": {exact, []try{
			{0, down, 100 * ms}, {0, down, 200 * ms}, {10 * time.Second, nil, 400 * ms}, {10*time.Second + 1, nil, 100 * ms}, {0, down, 200 * ms},
		}},
		"never anew by itself":          {retry.Policy{First: ms, Most: 4 * ms}, []try{{time.Hour, down, ms}, {time.Hour, down, 2 * ms}, {time.Hour, nil, 4 * ms}, {time.Hour, nil, 4 * ms}}},
		"a server is taken at its word": {exact, []try{{0, limited(t, 700*ms), 700 * ms}, {0, limited(t, 300*ms), 300 * ms}, {0, down, 400 * ms}}},
		"within the bounds":             {exact, []try{{0, limited(t, time.Hour), time.Second}, {0, limited(t, 0), 100 * ms}, {0, limited(t, -time.Hour), 100 * ms}}},
		"only where it limits us":       {exact, []try{{0, status.Error(codes.ResourceExhausted, "full"), 100 * ms}, {0, status.Error(codes.Unavailable, "away"), 200 * ms}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tries := retry.Tries{Policy: c.policy}
				for i, try := range c.tries {
					begun := time.Now()
					time.Sleep(try.lasts)
					ended := time.Now()
					time.Sleep(tries.Failed(ended.Sub(begun), try.err))
					if waited := time.Since(ended); waited != try.waits {
						t.Errorf("try %d: %s until the next, want %s", i+1, waited, try.waits)
					}
				}
				tries.Succeeded()
				if d := tries.Failed(0, nil); d != c.policy.First {
					t.Errorf("after a success it waits for %s", d)
				}
			})
		})
	}
}

func TestJitterTakesItsShareOfADelayAndNoMore(t *testing.T) {
	t.Parallel()
	for _, jitter := range []float64{0, 0.2, 0.5, 1} {
		p := retry.Policy{First: 100 * ms, Most: time.Minute, Jitter: jitter}
		for failures := 1; failures < 1000; failures++ {
			whole := min(p.Most, p.First<<min(failures-1, 20))
			low, high := p.Delay(failures, 0), p.Delay(failures, 0.999999)
			if want := time.Duration(float64(whole) * (1 - jitter)); (low-want).Abs() > time.Microsecond || high > whole || whole-high > ms {
				t.Fatalf("jitter %v, failure %d: %s to %s of %s", jitter, failures, low, high, whole)
			}
		}
	}
}

func TestADoublingOfFailuresIsWorthALine(t *testing.T) {
	t.Parallel()
	var told []int
	tries := retry.Tries{Policy: retry.Policy{First: ms, Most: ms}}
	for failures := range 20 {
		tries.Failed(0, nil)
		if tries.Doubled() {
			told = append(told, failures+1)
		}
	}
	if fmt.Sprint(told) != "[1 2 4 8 16]" {
		t.Errorf("told of failures %v", told)
	}
}

func TestAProcessThatEndsAgainAndAgainIsStartedMoreAndMoreSeldom(t *testing.T) {
	r := retry.Tries{Policy: retry.Policy{First: time.Second, Most: 4 * time.Second, Settled: time.Minute}}
	var got []time.Duration
	for range 4 {
		got = append(got, r.Failed(0, nil))
	}
	if got = append(got, r.Failed(time.Hour, nil)); !slices.Equal(got, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second, time.Second}) {
		t.Errorf("%v", got)
	}
}
