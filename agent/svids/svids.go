package svids

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/watched"
)

// Own is the keeper's name for the agent's own SVID; no Entry has it.
const Own = ""

const (
	// issueBatch bounds how many SVIDs one request asks for.
	issueBatch = 64
	// issueParallel bounds how many requests are under way: a slow one must not
	// hold up an identity that somebody waits for.
	issueParallel = 4
	issueTimeout  = 10 * time.Second
)

// SVID is one X.509-SVID with the key that was made here for it. Immutable.
type SVID struct {
	Entry string
	ID    spiffeid.ID
	// Chain is DER, leaf first, without the root.
	Chain [][]byte
	Leaf  *x509.Certificate
	Key   *ecdsa.PrivateKey
	// Issued is when the answer came, by this host's clock; due when the next is asked for.
	Issued, Due time.Time
}

// NotAfter is when the certificate ends.
func (s *SVID) NotAfter() time.Time { return s.Leaf.NotAfter }

// Lifetime is how long the SVID is good from when it came.
func (s *SVID) Lifetime() time.Duration { return s.Leaf.NotAfter.Sub(s.Issued) }

// Ends is NotAfter on both clocks.
func (s *SVID) Ends() time.Time { return s.Issued.Add(s.Lifetime()) }

// Fresh reports whether there is an SVID and it has not ended.
func (s *SVID) Fresh(now time.Time) bool { return s != nil && !Reached(s.Ends(), now) }

// Serial is the certificate's serial number, in hexadecimal.
func (s *SVID) Serial() string { return hex.EncodeToString(s.Leaf.SerialNumber.Bytes()) }

// Name names an SVID that somebody needs: by the entry or binding that grants it, and
// the identity, since an entry may come to grant another one.
type Name struct {
	Entry string
	ID    spiffeid.ID
}

// Issuer gets SVIDs signed: one result for each name, in order; the error is
// about the request as a whole. Called from several goroutines.
type Issuer func(ctx context.Context, names []Name) ([]Issued, error)

// Issued is the answer for one name.
type Issued struct {
	SVID *SVID
	Err  error
}

// Keeper keeps an SVID fresh for each entry that somebody once needed, as long
// as the entry exists: a proxy that restarts during an outage then finds its
// identity in memory. The last good SVID stays until the next one is there.
//
// mu guards the plans and is held over no request; held is replaced under it, so that
// what readers see is in order.
type Keeper struct {
	issue   Issuer
	log     *slog.Logger
	metrics *Metrics

	// held is what there is now, by entry.
	held watched.Value[map[string]*SVID]
	wake watched.Signal

	mu    sync.Mutex
	slots map[string]*slot // guarded by mu
	busy  int              // requests under way, guarded by mu
}

// slot is the plan for one entry.
type slot struct {
	name     Name
	next     time.Time
	failures int
	asked    bool // a request for it is under way
	current  *SVID
	err      error // of the last attempt
}

// NewKeeper returns one that keeps nothing yet.
func NewKeeper(issue Issuer, m *Metrics, log *slog.Logger) *Keeper {
	k := &Keeper{issue: issue, log: log, metrics: m, wake: watched.NewSignal(), slots: map[string]*slot{}}
	k.held.Set(map[string]*SVID{})
	return k
}

// Need asks for SVIDs to be kept. What is kept already is left alone.
func (k *Keeper) Need(names ...Name) {
	k.mu.Lock()
	added := false
	for _, w := range names {
		if s, ok := k.slots[w.Entry]; ok && s.name == w {
			continue
		}
		// An entry that was given another identity starts anew.
		k.slots[w.Entry] = &slot{name: w, next: time.Now()}
		added = true
	}
	k.mu.Unlock()
	if added {
		k.publish()
		k.wake.Wake()
	}
}

// Retain forgets every SVID that keep does not accept.
func (k *Keeper) Retain(keep func(Name) bool) {
	k.mu.Lock()
	before := len(k.slots)
	gone, kept := map[string]bool{}, map[string]bool{}
	maps.DeleteFunc(k.slots, func(_ string, s *slot) bool {
		if keep(s.name) {
			kept[s.name.ID.String()] = true
			return false
		}
		gone[s.name.ID.String()] = true
		return true
	})
	changed := len(k.slots) != before
	k.mu.Unlock()
	for id := range gone {
		if !kept[id] {
			k.metrics.dropped(id)
		}
	}
	if changed {
		k.publish()
	}
}

// Install takes an SVID that came another way: the agent's own, from Attest.
func (k *Keeper) Install(s *SVID) {
	k.mu.Lock()
	before := k.slots[s.Entry]
	k.slots[s.Entry] = &slot{name: Name{s.Entry, s.ID}, current: s, next: s.Due}
	k.mu.Unlock()
	if before != nil && before.name.ID != s.ID { // it joined anew, as another agent
		k.metrics.dropped(before.name.ID.String())
	}
	k.metrics.rotated(s)
	k.publish()
	k.wake.Wake()
}

// Failed counts an attempt to get an SVID for install that failed.
func (k *Keeper) Failed(err error) { k.metrics.renewFailures.WithLabelValues(failureReason(err)).Inc() }

// Watch returns what there is now, by entry, and a channel that is closed when that
// is replaced or an attempt has failed. Nobody changes the map.
func (k *Keeper) Watch() (map[string]*SVID, <-chan struct{}) { return k.held.Get() }

// Held is what there is now, by entry. Nobody changes it.
func (k *Keeper) Held() map[string]*SVID { return k.held.Load() }

// Get returns the SVID of an entry, nil where there is none that is still good.
func (k *Keeper) Get(entry string) *SVID {
	if s := k.held.Load()[entry]; s.Fresh(time.Now()) {
		return s
	}
	return nil
}

// Failure returns why the last attempt for an entry failed, nil where it did not.
func (k *Keeper) Failure(entry string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.slots[entry]; s != nil {
		return s.err
	}
	return nil
}

// RetryNow brings forward the attempts that wait after a failure: the server is
// there again. One draw is for all, so that most of them share requests.
func (k *Keeper) RetryNow() {
	now, random := time.Now(), rand.Float64()
	k.mu.Lock()
	for _, s := range k.slots {
		if s.failures > 0 {
			s.next = earlier(s.next, now.Add(returnDelay(s.left(now), random)))
		}
	}
	k.mu.Unlock()
	k.wake.Wake()
}

// Run asks for what is due until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		batch, next := k.take(time.Now())
		if len(batch) > 0 {
			wg.Go(func() { k.renew(ctx, batch) })
			continue
		}
		timer.Reset(Until(next))
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-timer.C:
		}
	}
}

// take marks what is due as asked for and returns it; without any, next is when
// to look again.
func (k *Keeper) take(now time.Time) (batch []Name, next time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next = now.Add(time.Hour)
	if k.busy >= issueParallel {
		return nil, next // the end of a request wakes
	}
	var due, soon []*slot
	for _, s := range k.slots {
		switch {
		case s.asked:
		case Reached(s.next, now):
			due = append(due, s)
		case s.failures == 0 && !s.next.After(now.Add(coalesce(s.life()))):
			soon = append(soon, s)
		}
		if !s.asked {
			next = earlier(next, s.next)
		}
	}
	if len(due) == 0 {
		return nil, next
	}
	// Those without any SVID first, then those whose time is longest past.
	slices.SortFunc(due, func(a, b *slot) int {
		if (a.current == nil) != (b.current == nil) {
			return map[bool]int{true: -1, false: 1}[a.current == nil]
		}
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.name.Entry, b.name.Entry))
	})
	due = append(due, soon...)
	for _, s := range due[:min(len(due), issueBatch)] {
		s.asked = true
		batch = append(batch, s.name)
	}
	k.busy++
	return batch, next
}

// renew asks for one batch and files the answers.
func (k *Keeper) renew(ctx context.Context, batch []Name) {
	bounded, cancel := context.WithTimeout(ctx, issueTimeout)
	results, err := k.issue(bounded, batch)
	cancel()
	now := time.Now()
	k.mu.Lock()
	k.busy--
	for i, w := range batch {
		s := k.slots[w.Entry]
		if s == nil || s.name != w {
			continue // no longer needed, or needed as something else
		}
		s.asked = false
		result := Issued{Err: err}
		if err == nil {
			result = results[i]
		}
		k.file(ctx, s, result, now)
	}
	k.mu.Unlock()
	k.publish()
	k.wake.Wake()
}

// file notes one answer. The caller holds mu.
func (k *Keeper) file(ctx context.Context, s *slot, result Issued, now time.Time) {
	s.err = result.Err
	if result.Err == nil {
		s.current, s.failures, s.next = result.SVID, 0, result.SVID.Due
		k.metrics.rotated(result.SVID)
		k.log.InfoContext(ctx, "svid issued", slog.String("spiffe_id", s.name.ID.String()), slog.String("serial", result.SVID.Serial()),
			slog.Time("not_after", result.SVID.NotAfter()), slog.Time("renewal", result.SVID.Due))
		return
	}
	s.failures++
	s.next = now.Add(Renewing(s.life()).Next(s.failures, result.Err))
	if ctx.Err() != nil {
		return // the agent stops: not a failure
	}
	reason := failureReason(result.Err)
	k.metrics.renewFailures.WithLabelValues(reason).Inc()
	level := slog.LevelWarn
	if s.failures&(s.failures-1) != 0 {
		level = slog.LevelDebug // in a long outage every doubling is told
	}
	k.log.Log(ctx, level, "svid not issued", slog.String("spiffe_id", s.name.ID.String()), slog.String("reason", reason),
		slog.Int("failures", s.failures), slog.Time("retry", s.next), slog.Any("err", result.Err))
}

func (s *slot) life() time.Duration {
	if s.current == nil {
		return 0
	}
	return s.current.Lifetime()
}

// left is how long the current SVID still lives.
func (s *slot) left(now time.Time) time.Duration {
	if s.current == nil {
		return 0
	}
	return s.current.NotAfter().Sub(now)
}

// publish swaps what readers see, where it changed.
func (k *Keeper) publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := make(map[string]*SVID, len(k.slots))
	for name, s := range k.slots {
		if s.current != nil {
			held[name] = s.current
		}
	}
	// A failure wakes readers too: one may wait for an SVID that will not come.
	k.held.Set(held)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
