package agent

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

// ownEntry is the keeper's name for the agent's own SVID; no Entry has it.
const ownEntry = ""

const (
	// issueBatch bounds how many SVIDs one request asks for.
	issueBatch = 64
	// issueParallel bounds how many requests are under way: a slow one must not
	// hold up an identity that somebody waits for.
	issueParallel = 4
	issueTimeout  = 10 * time.Second
)

// svid is one X.509-SVID with the key that was made here for it. Immutable.
type svid struct {
	entry string
	id    spiffeid.ID
	// chain is DER, leaf first, without the root.
	chain [][]byte
	leaf  *x509.Certificate
	key   *ecdsa.PrivateKey
	// issued is when the answer came, by this host's clock; due when the next is asked for.
	issued, due time.Time
}

func (s *svid) notAfter() time.Time     { return s.leaf.NotAfter }
func (s *svid) lifetime() time.Duration { return s.leaf.NotAfter.Sub(s.issued) }

// ends is notAfter on both clocks.
func (s *svid) ends() time.Time          { return s.issued.Add(s.lifetime()) }
func (s *svid) fresh(now time.Time) bool { return s != nil && !reached(s.ends(), now) }
func (s *svid) serial() string           { return hex.EncodeToString(s.leaf.SerialNumber.Bytes()) }

// want names an SVID that somebody needs.
type want struct {
	entry string
	id    spiffeid.ID
}

// issuer gets SVIDs signed: one result for each want, in order; the error is
// about the request as a whole. Called from several goroutines.
type issuer func(ctx context.Context, wants []want) ([]issued, error)

// issued is the answer for one want.
type issued struct {
	svid *svid
	err  error
}

// keeper keeps an SVID fresh for each entry that somebody once needed, as long
// as the entry exists: a proxy that restarts during an outage then finds its
// identity in memory. The last good SVID stays until the next one is there.
type keeper struct {
	issue   issuer
	log     *slog.Logger
	metrics *metrics

	// held is what there is now, by entry.
	held watched.Value[map[string]*svid]
	wake watched.Signal

	mu    sync.Mutex
	slots map[string]*slot // guarded by mu
	busy  int              // requests under way, guarded by mu
}

// slot is the plan for one entry.
type slot struct {
	want     want
	next     time.Time
	failures int
	asked    bool // a request for it is under way
	current  *svid
	err      error // of the last attempt
}

func newKeeper(issue issuer, m *metrics, log *slog.Logger) *keeper {
	k := &keeper{issue: issue, log: log, metrics: m, wake: watched.NewSignal(), slots: map[string]*slot{}}
	k.held.Set(map[string]*svid{})
	return k
}

// need asks for SVIDs to be kept. What is kept already is left alone.
func (k *keeper) need(wants ...want) {
	k.mu.Lock()
	added := false
	for _, w := range wants {
		if s, ok := k.slots[w.entry]; ok && s.want == w {
			continue
		}
		// An entry that was given another identity starts anew.
		k.slots[w.entry] = &slot{want: w, next: time.Now()}
		added = true
	}
	k.mu.Unlock()
	if added {
		k.publish()
		k.wake.Wake()
	}
}

// retain forgets every SVID that keep does not accept.
func (k *keeper) retain(keep func(want) bool) {
	k.mu.Lock()
	before := len(k.slots)
	gone, kept := map[string]bool{}, map[string]bool{}
	maps.DeleteFunc(k.slots, func(_ string, s *slot) bool {
		if keep(s.want) {
			kept[s.want.id.String()] = true
			return false
		}
		gone[s.want.id.String()] = true
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

// install takes an SVID that came another way: the agent's own, from Attest.
func (k *keeper) install(s *svid) {
	k.mu.Lock()
	k.slots[s.entry] = &slot{want: want{s.entry, s.id}, current: s, next: s.due}
	k.mu.Unlock()
	k.publish()
	k.wake.Wake()
}

// get returns the SVID of an entry, nil where there is none that is still good.
func (k *keeper) get(entry string) *svid {
	if s := k.held.Load()[entry]; s.fresh(time.Now()) {
		return s
	}
	return nil
}

// failure returns why the last attempt for an entry failed, nil where it did not.
func (k *keeper) failure(entry string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.slots[entry]; s != nil {
		return s.err
	}
	return nil
}

// retryNow brings forward the attempts that wait after a failure: the server is
// there again. One draw is for all, so that most of them share requests.
func (k *keeper) retryNow() {
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
func (k *keeper) Run(ctx context.Context) error {
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
		timer.Reset(until(next))
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
func (k *keeper) take(now time.Time) (batch []want, next time.Time) {
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
		case reached(s.next, now):
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
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.want.entry, b.want.entry))
	})
	due = append(due, soon...)
	for _, s := range due[:min(len(due), issueBatch)] {
		s.asked = true
		batch = append(batch, s.want)
	}
	k.busy++
	return batch, next
}

// renew asks for one batch and files the answers.
func (k *keeper) renew(ctx context.Context, batch []want) {
	bounded, cancel := context.WithTimeout(ctx, issueTimeout)
	results, err := k.issue(bounded, batch)
	cancel()
	now := time.Now()
	k.mu.Lock()
	k.busy--
	for i, w := range batch {
		s := k.slots[w.entry]
		if s == nil || s.want != w {
			continue // no longer needed, or needed as something else
		}
		s.asked = false
		result := issued{err: err}
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
func (k *keeper) file(ctx context.Context, s *slot, result issued, now time.Time) {
	s.err = result.err
	if result.err == nil {
		s.current, s.failures, s.next = result.svid, 0, result.svid.due
		k.metrics.rotated(result.svid)
		k.log.InfoContext(ctx, "svid issued", slog.String("spiffe_id", s.want.id.String()), slog.String("serial", result.svid.serial()),
			slog.Time("not_after", result.svid.notAfter()), slog.Time("renewal", result.svid.due))
		return
	}
	s.failures++
	s.next = now.Add(retryDelay(s.failures, s.life(), rand.Float64()))
	if ctx.Err() != nil {
		return // the agent stops: not a failure
	}
	reason := failureReason(result.err)
	k.metrics.renewFailures.WithLabelValues(reason).Inc()
	level := slog.LevelWarn
	if s.failures&(s.failures-1) != 0 {
		level = slog.LevelDebug // in a long outage every doubling is told
	}
	k.log.Log(ctx, level, "svid not issued", slog.String("spiffe_id", s.want.id.String()), slog.String("reason", reason),
		slog.Int("failures", s.failures), slog.Time("retry", s.next), slog.Any("err", result.err))
}

func (s *slot) life() time.Duration {
	if s.current == nil {
		return 0
	}
	return s.current.lifetime()
}

// left is how long the current SVID still lives.
func (s *slot) left(now time.Time) time.Duration {
	if s.current == nil {
		return 0
	}
	return s.current.notAfter().Sub(now)
}

// publish swaps what readers see, where it changed.
func (k *keeper) publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := make(map[string]*svid, len(k.slots))
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
