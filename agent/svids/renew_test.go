package svids

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

	"github.com/prometheus/client_golang/prometheus"
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

func (s *signer) issue(_ context.Context, wants []Name) ([]Issued, error) {
	time.Sleep(s.latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.batches = append(s.batches, len(wants))
	if s.err != nil {
		return nil, s.err
	}
	out := make([]Issued, len(wants))
	for i, w := range wants {
		s.serial++
		now := time.Now()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(s.serial), NotAfter: now.Add(s.lifetime)}
		out[i].SVID = &SVID{Entry: w.Entry, ID: w.ID, Leaf: leaf, Issued: now, Due: renewalDue(now, leaf.NotAfter, rand.Float64())}
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

func wantOf(path string) Name {
	return Name{"entry" + path, spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString("test.example"), path)}
}

// keep runs a keeper in a bubble of fake time.
func keep(t *testing.T, s *signer, test func(*Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(s.issue, NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
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
	keep(t, s, func(k *Keeper) {
		var wants []Name
		for i := range 50 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.Need(wants...)
		time.Sleep(5 * time.Second)
		least := hour
		for end := time.Now().Add(24 * hour); time.Now().Before(end); time.Sleep(7 * time.Second) {
			for _, w := range wants {
				sv := k.Get(w.Entry)
				if sv == nil {
					t.Fatal("an identity is not there")
				}
				least = min(least, time.Until(sv.NotAfter()))
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

func TestARenewalThatIsLimitedComesBackWhenItIsToldTo(t *testing.T) {
	limit, err := status.New(codes.ResourceExhausted, "too many requests").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(700 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{lifetime: hour, err: fmt.Errorf("issue: %w", limit.Err())}
	keep(t, s, func(k *Keeper) {
		k.Need(wantOf("/web"))
		time.Sleep(8*700*time.Millisecond + time.Millisecond)
		if n := s.count(); n != 9 {
			t.Errorf("%d requests while it was told to wait 700 ms, 8 times", n)
		}
	})
}

func TestRetriesGrowAreBoundedAndNeverAtOnce(t *testing.T) {
	for _, c := range []struct {
		lifetime, most time.Duration
	}{{0, retryNew}, {6 * time.Second, 150 * time.Millisecond}, {hour, retryMost}, {24 * hour, retryMost}} {
		last := time.Duration(0)
		for failures := 1; failures < 64; failures++ {
			low, high := Renewing(c.lifetime).Delay(failures, 0), Renewing(c.lifetime).Delay(failures, 0.999999)
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
	keep(t, s, func(k *Keeper) {
		w := wantOf("/web")
		k.Need(w)
		time.Sleep(time.Minute)
		before := k.Get(w.Entry)
		s.fail(errors.New("no server"))
		for range 44 {
			time.Sleep(time.Minute)
			if got := k.Get(w.Entry); got != before {
				t.Fatalf("after %s: %v", time.Since(before.Issued), got)
			}
		}
		if k.Failure(w.Entry) == nil {
			t.Error("no failure is told")
		}
		tried := s.count()
		time.Sleep(10 * time.Minute)
		if n := s.count() - tried; n < 15 {
			t.Errorf("only %d attempts in 10 minutes", n)
		}
		s.fail(nil)
		time.Sleep(retryMost)
		if got := k.Get(w.Entry); got == before || got == nil {
			t.Error("renewal did not resume")
		}
		if err := k.Failure(w.Entry); err != nil {
			t.Errorf("still told as failing: %v", err)
		}
	})
}

func TestAnExpiredSVIDIsNoLongerGiven(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *Keeper) {
		w := wantOf("/web")
		k.Need(w)
		time.Sleep(time.Second)
		s.fail(errors.New("no server"))
		time.Sleep(hour)
		if k.Get(w.Entry) != nil {
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
		if Reached(c.deadline, now) != c.want {
			t.Errorf("%s: want %v", name, c.want)
		}
	}
}

// A virtual machine that was suspended wakes up with certificates that are due or
// have ended, and with timers that know nothing of it.
func TestAHostThatSleptRenewsAtOnce(t *testing.T) {
	t.Parallel()
	s := &signer{lifetime: hour}
	k := NewKeeper(s.issue, NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	w, now := wantOf("/web"), time.Now() // real time: synctest's has one clock
	old := &SVID{Entry: w.Entry, ID: w.ID, Leaf: &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: now.Add(hour)}}
	old.Issued, old.Due = asleep(t, now, 8*hour), asleep(t, now.Add(100*time.Millisecond), 8*hour)
	k.Install(old)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	bounded, late := context.WithTimeout(t.Context(), 20*time.Second)
	defer late()
	if _, err := k.held.Wait(bounded, func(held map[string]*SVID) bool { return held[w.Entry] != old }); err != nil {
		t.Error("it was not renewed when the wall clock said so")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAClockThatIsSetBackDoesNotMakeAnSVIDLiveLonger(t *testing.T) {
	now := time.Now()
	old := &SVID{Issued: now.Add(-2 * hour), Leaf: &x509.Certificate{NotAfter: now.Add(-hour).Round(0)}}
	back := asleep(t, now.Add(-24*hour), 24*hour) // what both clocks say after the wall clock was set back a day
	if old.Fresh(now) || old.Fresh(back) {
		t.Errorf("an SVID that ended an hour ago is given: %v, after the clock was set back: %v", old.Fresh(now), old.Fresh(back))
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
	keep(t, s, func(k *Keeper) {
		var wants []Name
		for i := range 50 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.Need(wants...)
		time.Sleep(time.Second)
		s.fail(errors.New("no server"))
		k.Need(wantOf("/new"))
		time.Sleep(30 * time.Minute)
		s.fail(nil)
		k.RetryNow()
		time.Sleep(2 * retryFirst)
		if k.Get("entry/new") == nil {
			t.Error("who waits for a first SVID waits on")
		}
		time.Sleep(retryMost)
		synctest.Wait()
		for _, w := range wants {
			if sv := k.Get(w.Entry); time.Since(sv.Issued) > time.Minute {
				t.Errorf("%s is not renewed", w.ID)
			}
		}
	})
}

func TestNeedsAtOnceShareARequestAndNewOnesDoNotWaitForSlowOnes(t *testing.T) {
	s := &signer{lifetime: hour, latency: 5 * time.Second}
	keep(t, s, func(k *Keeper) {
		var wants []Name
		for i := range 100 {
			wants = append(wants, wantOf("/w/"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		k.Need(wants...)
		time.Sleep(time.Second)
		k.Need(wantOf("/late"))
		time.Sleep(5*time.Second + time.Millisecond)
		if k.Get("entry/late") == nil {
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
		k := NewKeeper(func(ctx context.Context, wants []Name) ([]Issued, error) {
			out, err := s.issue(ctx, wants)
			for i, w := range wants {
				if w == bad {
					out[i] = Issued{Err: &RefusedError{"no such entry"}}
				}
			}
			return out, err
		}, NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		k.Need(good, bad)
		time.Sleep(time.Second)
		if k.Get(good.Entry) == nil || k.Get(bad.Entry) != nil || failureReason(k.Failure(bad.Entry)) != "refused" {
			t.Errorf("good %v, bad %v: %v", k.Get(good.Entry), k.Get(bad.Entry), k.Failure(bad.Entry))
		}
		cancel()
		<-done //nolint:errcheck // how it ends is another test's
	})
}

func TestAnEntryThatGoesOrChangesIsForgotten(t *testing.T) {
	s := &signer{lifetime: hour}
	keep(t, s, func(k *Keeper) {
		one, two := wantOf("/one"), wantOf("/two")
		k.Need(one, two)
		time.Sleep(time.Second)
		k.Retain(func(w Name) bool { return w == two })
		if k.Get(one.Entry) != nil || k.Get(two.Entry) == nil {
			t.Error("the wrong one was forgotten")
		}
		changed := Name{two.Entry, one.ID}
		k.Need(changed)
		// The new one may be there already: the keeper runs beside us.
		if got := k.Get(two.Entry); got != nil && got.ID != one.ID {
			t.Error("the old identity is still given under the entry")
		}
		time.Sleep(time.Second)
		if got := k.Get(two.Entry); got == nil || got.ID != one.ID {
			t.Errorf("got %v", got)
		}
	})
}
