package issuance

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/server/fault"
)

// orphanAge is how old a reservation without an outcome is before it counts: a
// signer takes milliseconds.
const orphanAge = time.Minute

// Records is the signer's log. One goroutine follows it, and others read it from
// its beginning meanwhile.
type Records interface {
	// Authority states how far the log goes.
	Authority(ctx context.Context) (*api.AuthorityResponse, error)
	// ReadLog calls each with the records from a number on, in their order, until each
	// fails or the log ends, which is nil. With follow the log ends with the signer.
	ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error
}

// Log follows the signer's log. It keeps what is still open or valid, so its
// size is that of what is alive, not of history.
type Log struct {
	signer Records
	log    *slog.Logger
	clock  func() time.Time

	mu   sync.Mutex                // guards the following; the records themselves never change
	open map[string]*api.LogRecord // reserved, by serial
	live map[string]*api.LogRecord // issued and not expired, by serial
	own  map[string]Newest         // agents' own, by SPIFFE ID: one each, however long ago
	read uint64                    // the number of the last record, which are counted from 1
	next chan struct{}             // where somebody waits: closed by the next record
}

// Newest is the newest certificate of an agent's own.
type Newest struct {
	Issued, End time.Time
	Renewed     bool // there was one before it
}

// NewLog has nothing until it is followed.
func NewLog(signer Records, clock func() time.Time, log *slog.Logger) *Log {
	return &Log{
		signer: signer, log: log, clock: clock,
		open: map[string]*api.LogRecord{}, live: map[string]*api.LogRecord{}, own: map[string]Newest{},
	}
}

// following is how soon a log that ended is followed on.
var following = retry.Policy{First: 100 * time.Millisecond, Most: time.Second, Settled: 10 * time.Second}

// Run follows the log until ctx ends. When the stream breaks (the signer was
// restarted) it goes on from where it was.
func (l *Log) Run(ctx context.Context) error {
	for tries := (retry.Tries{Policy: following}); ; {
		begun := time.Now()
		err := l.Follow(ctx)
		wait := tries.Failed(time.Since(begun), nil)
		if err != nil && ctx.Err() == nil && tries.Doubled() {
			l.log.WarnContext(ctx, "issuance log not followed, trying again", slog.Any("err", err))
		}
		if !watched.Sleep(ctx, wait) {
			return nil
		}
	}
}

// Follow reads on from where it was until the signer or ctx ends, and returns which.
func (l *Log) Follow(ctx context.Context) error {
	l.mu.Lock()
	from := l.read + 1
	l.mu.Unlock()
	return l.signer.ReadLog(ctx, from, true, func(r *api.LogRecord) error {
		l.take(r)
		return nil
	})
}

func (l *Log) take(r *api.LogRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = r.GetSequence()
	if l.next != nil {
		close(l.next)
		l.next = nil
	}
	switch r.GetKind() {
	case api.RecordKind_RECORD_KIND_RESERVED:
		l.open[r.GetSerial()] = r
	case api.RecordKind_RECORD_KIND_ISSUED:
		delete(l.open, r.GetSerial())
		if r.GetNotAfter().AsTime().After(l.clock()) {
			l.live[r.GetSerial()] = r
		}
		if r.GetProfile() == api.Profile_PROFILE_AGENT {
			_, renewed := l.own[r.GetSpiffeId()]
			l.own[r.GetSpiffeId()] = Newest{r.GetTime().AsTime(), r.GetNotAfter().AsTime(), renewed}
		}
	case api.RecordKind_RECORD_KIND_ABANDONED:
		delete(l.open, r.GetSerial())
	}
	if l.read%1024 == 0 {
		l.prune()
	}
}

func (l *Log) prune() {
	now := l.clock()
	maps.DeleteFunc(l.live, func(_ string, r *api.LogRecord) bool { return !r.GetNotAfter().AsTime().After(now) })
}

// Read counts the records that are known here.
func (l *Log) Read() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read
}

// Of finds the record of a live certificate.
func (l *Log) Of(serial string) *api.LogRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live[serial]
}

// NewestOf finds the newest certificate of an agent's own, zero for none.
func (l *Log) NewestOf(spiffeID string) Newest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own[spiffeID]
}

// HeldBy counts the certificates that were issued to an agent and are still good,
// and returns when the last of them ends.
func (l *Log) HeldBy(spiffeID string) (n int32, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.live {
		if end := r.GetNotAfter().AsTime(); r.GetRequester() == spiffeID && end.After(l.clock()) {
			n++
			if end.After(last) {
				last = end
			}
		}
	}
	return n, last
}

// standsStill is how long CaughtUp waits for the next record, which is there to be read.
const standsStill = 10 * time.Second

// CaughtUp waits until the log was read as far as it goes now, and no longer than it is read.
func (l *Log) CaughtUp(ctx context.Context) error {
	a, err := l.signer.Authority(ctx)
	if err != nil {
		return fmt.Errorf("%w: size of the issuance log: %w", fault.Unavailable, err)
	}
	timer := time.NewTimer(standsStill)
	defer timer.Stop()
	for {
		read, next := l.progress()
		if read >= a.GetLogSize() { // the last record's number
			return nil
		}
		select {
		case <-next:
			timer.Reset(standsStill)
		case <-timer.C:
			return fault.New(fault.Unavailable, "the issuance log is read to record %d of %d, and nothing came for %s: the server's log says why", read, a.GetLogSize(), standsStill)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// progress is the number of the last record, and what is closed by the next.
func (l *Log) progress() (read uint64, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(chan struct{})
	}
	return l.read, l.next
}

// Orphans lists reservations that came to nothing: recorded, never answered.
func (l *Log) Orphans(now time.Time) []*api.LogRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*api.LogRecord
	for _, r := range l.open {
		if now.Sub(r.GetTime().AsTime()) > orphanAge {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *api.LogRecord) int { return strings.Compare(a.GetSerial(), b.GetSerial()) })
	return list
}

// History reads the whole log once and hands over each certificate as the log
// ends up telling it: issued, expired or reserved, in order of issuance.
func (l *Log) History(ctx context.Context, each func(*api.Cert) error) error {
	open := map[string]*api.LogRecord{}
	var gone error // whoever the history is for
	err := l.signer.ReadLog(ctx, 0, false, func(r *api.LogRecord) error {
		switch r.GetKind() {
		case api.RecordKind_RECORD_KIND_RESERVED:
			open[r.GetSerial()] = r
		case api.RecordKind_RECORD_KIND_ABANDONED:
			// stays listed: a serial that was recorded and never answered
		case api.RecordKind_RECORD_KIND_ISSUED:
			delete(open, r.GetSerial())
			gone = each(l.cert(r))
		}
		return gone
	})
	if gone != nil {
		return gone
	}
	if err != nil {
		return fmt.Errorf("read the issuance log: %w", err)
	}
	for _, serial := range slices.Sorted(maps.Keys(open)) {
		if err := each(l.cert(open[serial])); err != nil {
			return err
		}
	}
	return nil
}

// cert is a log record as the operator sees it.
func (l *Log) cert(r *api.LogRecord) *api.Cert {
	state := api.Cert_ISSUED
	switch {
	case r.GetKind() == api.RecordKind_RECORD_KIND_RESERVED:
		state = api.Cert_RESERVED
	case !r.GetNotAfter().AsTime().After(l.clock()):
		state = api.Cert_EXPIRED
	}
	c := &api.Cert{
		SpiffeId: r.GetSpiffeId(), Node: r.GetRequester(), Serial: r.GetSerial(),
		NotBefore: r.GetNotBefore(), NotAfter: r.GetNotAfter(), State: state.Enum(),
	}
	api.Reconcile(c)
	return c
}
