package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// These tests look at the keeper from within: its time is synctest's.

const hour = time.Hour

// signer answers a keeper's requests.
type signer struct {
	lifetime, latency time.Duration

	mu       sync.Mutex
	serial   int64
	requests int
	batches  []int
	err      error
}

func (s *signer) issue(_ context.Context, wants []want) ([]issued, error) {
	time.Sleep(s.latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.batches = append(s.batches, len(wants))
	if s.err != nil {
		return nil, s.err
	}
	out := make([]issued, len(wants))
	for i, w := range wants {
		s.serial++
		now := time.Now()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(s.serial), NotAfter: now.Add(s.lifetime)}
		out[i].svid = &svid{entry: w.entry, id: w.id, leaf: leaf, issued: now, due: renewalDue(now, leaf.NotAfter, rand.Float64())}
	}
	return out, nil
}

func (s *signer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *signer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func wantOf(path string) want {
	return want{"entry" + path, spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString("test.example"), path)}
}

// keep runs a keeper in a bubble of fake time.
func keep(t *testing.T, s *signer, test func(*keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(s.issue, newMetrics(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		test(k)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The outage promise: whenever the servers go away, every identity that is kept
// has at least 45 of its 60 minutes left (F1).
func TestTheFortyFiveOfSixtyBound(t *testing.T) {
	s := &signer{lifetime: hour, latency: 2 * time.Second}
	keep(t, s, func(k *keeper) {
		var wants []want
		for i := range 50 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.need(wants...)
		time.Sleep(5 * time.Second)
		least := hour
		for end := time.Now().Add(24 * hour); time.Now().Before(end); time.Sleep(7 * time.Second) {
			for _, w := range wants {
				sv := k.get(w.entry)
				if sv == nil {
					t.Fatal("an identity is not there")
				}
				least = min(least, time.Until(sv.notAfter()))
			}
		}
		t.Logf("least time left: %s", least)
		if least < 45*time.Minute {
			t.Errorf("only %s left", least)
		}
	})
}

func TestRenewalsAreSpread(t *testing.T) {
	issued := time.Now()
	for _, random := range []float64{0, 0.25, 0.5, 0.999999} {
		after := renewalDue(issued, issued.Add(hour), random).Sub(issued)
		if after < 9*time.Minute || after >= 15*time.Minute {
			t.Errorf("random %v: renewed after %s, want 20 %% ± 5 %% of an hour", random, after)
		}
	}
	if a, b := renewalDue(issued, issued.Add(hour), 0.1), renewalDue(issued, issued.Add(hour), 0.9); b.Sub(a) < 4*time.Minute {
		t.Errorf("renewals are only %s apart", b.Sub(a))
	}
}

func TestRetriesGrowAreBoundedAndNeverAtOnce(t *testing.T) {
	for _, c := range []struct {
		lifetime, most time.Duration
	}{{0, retryNew}, {6 * time.Second, 150 * time.Millisecond}, {hour, retryMost}, {24 * hour, retryMost}} {
		last := time.Duration(0)
		for failures := 1; failures < 64; failures++ {
			low, high := retryDelay(failures, c.lifetime, 0), retryDelay(failures, c.lifetime, 0.999999)
			if low < retryFirst/2 || high > c.most || low < last {
				t.Fatalf("lifetime %s, failure %d: %s to %s", c.lifetime, failures, low, high)
			}
			last = low
		}
		if last < c.most/2 {
			t.Errorf("lifetime %s: delays end at %s", c.lifetime, last)
		}
	}
}

func TestAnOutageKeepsTheLastGoodAndRenewalResumesByItself(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *keeper) {
		w := wantOf("/web")
		k.need(w)
		time.Sleep(time.Minute)
		before := k.get(w.entry)
		s.fail(errors.New("no server"))
		for range 44 {
			time.Sleep(time.Minute)
			if got := k.get(w.entry); got != before {
				t.Fatalf("after %s: %v", time.Since(before.issued), got)
			}
		}
		if k.failure(w.entry) == nil {
			t.Error("no failure is told")
		}
		tried := s.count()
		time.Sleep(10 * time.Minute)
		if n := s.count() - tried; n < 15 {
			t.Errorf("only %d attempts in 10 minutes", n)
		}
		s.fail(nil)
		time.Sleep(retryMost)
		if got := k.get(w.entry); got == before || got == nil {
			t.Error("renewal did not resume")
		}
		if err := k.failure(w.entry); err != nil {
			t.Errorf("still told as failing: %v", err)
		}
	})
}

func TestAnExpiredSVIDIsNoLongerGiven(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *keeper) {
		w := wantOf("/web")
		k.need(w)
		time.Sleep(time.Second)
		s.fail(errors.New("no server"))
		time.Sleep(hour)
		if k.get(w.entry) != nil {
			t.Error("given")
		}
	})
}

// asleep is a time that was noted before the host slept for d: the kernel does
// not count the monotonic clock on meanwhile. A negative d is a wall clock that
// was set back. There is no other way to have the two clocks differ.
func asleep(t testing.TB, before time.Time, d time.Duration) time.Time {
	t.Helper()
	after := before
	*(*int64)(unsafe.Add(unsafe.Pointer(&after), 8)) += int64(d) //nolint:gosec // time.Time's second word is the monotonic reading; checked below
	if !after.Round(0).Equal(before.Round(0)) || after.Sub(before) != d {
		t.Fatal("time.Time is laid out otherwise")
	}
	return after
}

func TestADeadlineIsReachedByEitherClock(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		deadline time.Time
		want     bool
	}{
		"ahead":                          {now.Add(time.Minute), false},
		"past":                           {now.Add(-time.Minute), true},
		"past, by the wall clock alone":  {asleep(t, now.Add(-time.Minute), hour), true},
		"past, by the monotonic alone":   {asleep(t, now.Add(time.Minute), -hour), true},
		"ahead, without a second clock":  {now.Add(time.Minute).Round(0), false},
		"this very moment":               {now, true},
		"past, without a second clock":   {now.Add(-time.Minute).Round(0), true},
		"ahead, and the host slept some": {asleep(t, now.Add(time.Minute), hour), false},
	} {
		if reached(c.deadline, now) != c.want {
			t.Errorf("%s: want %v", name, c.want)
		}
	}
}

// A virtual machine that was suspended wakes up with certificates that are due or
// have ended, and with timers that know nothing of it.
func TestAHostThatSleptRenewsAtOnce(t *testing.T) {
	t.Parallel()
	s := &signer{lifetime: hour}
	k := newKeeper(s.issue, newMetrics(), slog.New(slog.DiscardHandler))
	w, now := wantOf("/web"), time.Now() // real time: synctest's has one clock
	old := &svid{entry: w.entry, id: w.id, leaf: &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: now.Add(hour)}}
	old.issued, old.due = asleep(t, now, 8*hour), asleep(t, now.Add(100*time.Millisecond), 8*hour)
	k.install(old)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	bounded, late := context.WithTimeout(t.Context(), 20*time.Second)
	defer late()
	if _, err := k.held.Wait(bounded, func(held map[string]*svid) bool { return held[w.entry] != old }); err != nil {
		t.Error("it was not renewed when the wall clock said so")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAClockThatIsSetBackDoesNotMakeAnSVIDLiveLonger(t *testing.T) {
	now := time.Now()
	old := &svid{issued: now.Add(-2 * hour), leaf: &x509.Certificate{NotAfter: now.Add(-hour).Round(0)}}
	back := asleep(t, now.Add(-24*hour), 24*hour) // what both clocks say after the wall clock was set back a day
	if old.fresh(now) || old.fresh(back) {
		t.Errorf("an SVID that ended an hour ago is given: %v, after the clock was set back: %v", old.fresh(now), old.fresh(back))
	}
}

// What is urgent comes first when the server is back. The rest is spread: all
// agents of a fleet have waited for this moment.
func TestWhenTheServerIsBackTheUrgentComesAtOnceAndTheRestIsSpread(t *testing.T) {
	const left = 40 * time.Minute
	for _, r := range []float64{0, 0.5, 0.999999} {
		if d := returnDelay(0, r); d > 2*retryFirst {
			t.Errorf("without an SVID it waits for %s", d)
		}
		if d := returnDelay(10*time.Second, r); d > time.Second {
			t.Errorf("with 10 s left it waits for %s", d)
		}
		if d := returnDelay(left, r); d > retryMost+retryFirst {
			t.Errorf("with %s left it waits for %s", left, d)
		}
	}
	if a, b := returnDelay(left, 0.1), returnDelay(left, 0.9); b-a < retryMost/2 {
		t.Errorf("agents with %s left are only %s apart", left, b-a)
	}
}

func TestRetryNowRenewsWhatIsUrgentAtOnceAndTheRestSoon(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *keeper) {
		var wants []want
		for i := range 50 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.need(wants...)
		time.Sleep(time.Second)
		s.fail(errors.New("no server"))
		k.need(wantOf("/new"))
		time.Sleep(30 * time.Minute)
		s.fail(nil)
		k.retryNow()
		time.Sleep(2 * retryFirst)
		if k.get("entry/new") == nil {
			t.Error("who waits for a first SVID waits on")
		}
		time.Sleep(retryMost)
		synctest.Wait()
		for _, w := range wants {
			if sv := k.get(w.entry); time.Since(sv.issued) > time.Minute {
				t.Errorf("%s is not renewed", w.id)
			}
		}
	})
}

func TestNeedsAtOnceShareARequestAndNewOnesDoNotWaitForSlowOnes(t *testing.T) {
	s := &signer{lifetime: hour, latency: 5 * time.Second}
	keep(t, s, func(k *keeper) {
		var wants []want
		for i := range 100 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.need(wants...)
		time.Sleep(time.Second)
		k.need(wantOf("/late"))
		time.Sleep(5*time.Second + time.Millisecond)
		if k.get("entry/late") == nil {
			t.Error("the late one waits for the others")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		slices.Sort(s.batches)
		if !slices.Equal(s.batches, []int{1, 100 - issueBatch, issueBatch}) {
			t.Errorf("batches of %v", s.batches)
		}
	})
}

func TestOneRefusalDoesNotHoldUpTheRestOfABatch(t *testing.T) {
	good, bad := wantOf("/good"), wantOf("/bad")
	s := &signer{lifetime: hour}
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(func(ctx context.Context, wants []want) ([]issued, error) {
			out, err := s.issue(ctx, wants)
			for i, w := range wants {
				if w == bad {
					out[i] = issued{err: &refusedError{"no such entry"}}
				}
			}
			return out, err
		}, newMetrics(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		k.need(good, bad)
		time.Sleep(time.Second)
		if k.get(good.entry) == nil || k.get(bad.entry) != nil || failureReason(k.failure(bad.entry)) != "refused" {
			t.Errorf("good %v, bad %v: %v", k.get(good.entry), k.get(bad.entry), k.failure(bad.entry))
		}
		cancel()
		<-done //nolint:errcheck // how it ends is another test's
	})
}

func TestAnEntryThatGoesOrChangesIsForgotten(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *keeper) {
		one, two := wantOf("/one"), wantOf("/two")
		k.need(one, two)
		time.Sleep(time.Second)
		k.retain(func(w want) bool { return w == two })
		if k.get(one.entry) != nil || k.get(two.entry) == nil {
			t.Error("the wrong one was forgotten")
		}
		changed := want{two.entry, one.id}
		k.need(changed)
		// The new one may be there already: the keeper runs beside us.
		if got := k.get(two.entry); got != nil && got.id != one.id {
			t.Error("the old identity is still given under the entry")
		}
		time.Sleep(time.Second)
		if got := k.get(two.entry); got == nil || got.id != one.id {
			t.Errorf("got %v", got)
		}
	})
}

func TestAnAgentThatIsLimitedComesBackWhenItIsToldTo(t *testing.T) {
	t.Parallel()
	limits := func(after time.Duration) error {
		s, err := status.New(codes.ResourceExhausted, "too many requests").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("attest: %w", s.Err())
	}
	synctest.Test(t, func(t *testing.T) {
		e := &enrolment{log: slog.New(slog.DiscardHandler)}
		begun, attempts := time.Now(), 0
		_, err := e.untilAnswered(t.Context(), func() (*svid, error) {
			if attempts++; attempts <= 8 {
				return nil, limits(300 * time.Millisecond)
			}
			return nil, nil
		})
		if took := time.Since(begun); err != nil || took != 8*300*time.Millisecond {
			t.Errorf("let in after %s: %v", took, err)
		}
	})
	for name, c := range map[string]struct {
		err  error
		want time.Duration
		told bool
	}{
		"it says":                  {limits(700 * time.Millisecond), 700 * time.Millisecond, true},
		"it says never":            {limits(time.Hour), retryNew, true},
		"it says at once":          {limits(0), retryFirst, true},
		"it says before":           {limits(-time.Hour), retryFirst, true},
		"it does not":              {status.Error(codes.ResourceExhausted, "too many requests"), 0, false},
		"it is not there":          {status.Error(codes.Unavailable, "no route"), 0, false},
		"nothing of gRPC is in it": {errors.New("broken"), 0, false},
	} {
		if got, told := retryAfter(c.err); got != c.want || told != c.told {
			t.Errorf("%s: %s %v, want %s %v", name, got, told, c.want, c.told)
		}
	}
}
