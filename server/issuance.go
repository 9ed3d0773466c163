package server

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
	"signet.example/internal/watched"
	"signet.example/server/fault"
)

// orphanAge is how old a reservation without an outcome is before it counts: a
// signer takes milliseconds.
const orphanAge = time.Minute

// issuanceLog is the signer's log. One goroutine follows it, and others read it from
// its beginning meanwhile.
type issuanceLog interface {
	// Authority states how far the log goes.
	Authority(ctx context.Context) (*api.AuthorityResponse, error)
	// ReadLog calls each with the records from a number on, in their order, until each
	// fails or the log ends, which is nil. With follow the log ends with the signer.
	ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error
}

// issuance follows the signer's log. It keeps what is still open or valid, so its
// size is that of what is alive, not of history.
type issuance struct {
	signer issuanceLog
	log    *slog.Logger
	clock  func() time.Time

	mu   sync.Mutex                // guards the following; the records themselves never change
	open map[string]*api.LogRecord // reserved, by serial
	live map[string]*api.LogRecord // issued and not expired, by serial
	own  map[string]ownCert        // agents' own, by SPIFFE ID: one each, however long ago
	next uint64
}

// ownCert is the newest certificate of an agent's own.
type ownCert struct {
	issued, end time.Time
	renewed     bool // there was one before it
}

// run follows the log until ctx ends. When the stream breaks (the signer was
// restarted) it goes on from where it was.
func (i *issuance) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := i.follow(ctx); ctx.Err() == nil {
			i.log.DebugContext(ctx, "issuance log", slog.Any("err", err))
		}
		watched.Sleep(ctx, 250*time.Millisecond)
	}
	return nil
}

// follow reads on until the signer or ctx ends, and says which.
func (i *issuance) follow(ctx context.Context) error {
	i.mu.Lock()
	from := i.next
	i.mu.Unlock()
	return i.signer.ReadLog(ctx, from, true, func(r *api.LogRecord) error {
		i.take(r)
		return nil
	})
}

func (i *issuance) take(r *api.LogRecord) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.next = r.GetSequence() + 1
	switch r.GetKind() {
	case api.RecordKind_RECORD_KIND_RESERVED:
		i.open[r.GetSerial()] = r
	case api.RecordKind_RECORD_KIND_ISSUED:
		delete(i.open, r.GetSerial())
		if r.GetNotAfter().AsTime().After(i.clock()) {
			i.live[r.GetSerial()] = r
		}
		if r.GetProfile() == api.Profile_PROFILE_AGENT {
			_, renewed := i.own[r.GetSpiffeId()]
			i.own[r.GetSpiffeId()] = ownCert{r.GetTime().AsTime(), r.GetNotAfter().AsTime(), renewed}
		}
		if i.next%1024 == 0 {
			i.prune()
		}
	case api.RecordKind_RECORD_KIND_ABANDONED:
		delete(i.open, r.GetSerial())
	}
}

func (i *issuance) prune() {
	now := i.clock()
	maps.DeleteFunc(i.live, func(_ string, r *api.LogRecord) bool { return !r.GetNotAfter().AsTime().After(now) })
}

// of finds the record of a live certificate.
func (i *issuance) of(serial string) *api.LogRecord {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live[serial]
}

// ownOf finds the newest certificate of an agent's own.
func (i *issuance) ownOf(spiffeID string) ownCert {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.own[spiffeID]
}

// heldBy counts the certificates that were issued to an agent and are still good,
// and tells when the last of them ends.
func (i *issuance) heldBy(spiffeID string) (n int32, last time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.live {
		if end := r.GetNotAfter().AsTime(); r.GetRequester() == spiffeID && end.After(i.clock()) {
			n++
			if end.After(last) {
				last = end
			}
		}
	}
	return n, last
}

// caughtUp waits until the log was read as far as it goes now.
func (i *issuance) caughtUp(ctx context.Context) error {
	a, err := i.signer.Authority(ctx)
	if err != nil {
		return fmt.Errorf("%w: size of the issuance log: %w", fault.Unavailable, err)
	}
	for ctx.Err() == nil {
		i.mu.Lock()
		next := i.next
		i.mu.Unlock()
		if next >= a.GetLogSize() {
			return nil
		}
		watched.Sleep(ctx, 10*time.Millisecond)
	}
	return ctx.Err()
}

// orphans lists reservations that came to nothing: recorded, never answered.
func (i *issuance) orphans(now time.Time) []*api.LogRecord {
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []*api.LogRecord
	for _, r := range i.open {
		if now.Sub(r.GetTime().AsTime()) > orphanAge {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *api.LogRecord) int { return strings.Compare(a.GetSerial(), b.GetSerial()) })
	return list
}

// history reads the whole log once and hands over each certificate as the log
// ends up telling it: issued, expired or reserved, in order of issuance.
func (i *issuance) history(ctx context.Context, each func(*api.Cert) error) error {
	open := map[string]*api.LogRecord{}
	var gone error // whoever the history is for
	err := i.signer.ReadLog(ctx, 0, false, func(r *api.LogRecord) error {
		switch r.GetKind() {
		case api.RecordKind_RECORD_KIND_RESERVED:
			open[r.GetSerial()] = r
		case api.RecordKind_RECORD_KIND_ABANDONED:
			// stays listed: a serial that was recorded and never answered
		case api.RecordKind_RECORD_KIND_ISSUED:
			delete(open, r.GetSerial())
			gone = each(i.cert(r))
		}
		return gone
	})
	if gone != nil {
		return gone
	}
	if err != nil {
		return fmt.Errorf("read the issuance log: %w", err)
	}
	for _, serial := range sortedKeys(open) {
		if err := each(i.cert(open[serial])); err != nil {
			return err
		}
	}
	return nil
}

// cert is a log record as the operator sees it.
func (i *issuance) cert(r *api.LogRecord) *api.Cert {
	state := api.Cert_ISSUED
	switch {
	case r.GetKind() == api.RecordKind_RECORD_KIND_RESERVED:
		state = api.Cert_RESERVED
	case !r.GetNotAfter().AsTime().After(i.clock()):
		state = api.Cert_EXPIRED
	}
	c := &api.Cert{
		SpiffeId: r.GetSpiffeId(), Node: r.GetRequester(), Serial: r.GetSerial(),
		NotBefore: r.GetNotBefore(), NotAfter: r.GetNotAfter(), State: state.Enum(),
	}
	api.Reconcile(c)
	return c
}
