package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/server/signer"
	"signet.example/store"
)

// marks is where a witness keeps what it has seen. Writes are durable on return.
type marks interface {
	LogMark(ctx context.Context) (store.LogMark, error)
	PutLogMark(ctx context.Context, m store.LogMark) error
	ResetLogMark(ctx context.Context, actor, detail string, m store.LogMark) error
}

// mostRefusals is how often one call is made that is refused for the log each time.
const mostRefusals = 3

// witness is the signer as the rest of the server sees it. It keeps, on the server's
// side, the newest position of the issuance log that it has seen, before anybody
// gets a certificate that is recorded up to there. A signer whose log has that
// position no more issues nothing: certificates are in use of which it has no record.
type witness struct {
	*signer.Client // reads the log as it is
	marks          marks
	accept         string // the refusal that the operator accepts, once; see recordsGone.code
	log            *slog.Logger

	writing sync.Mutex    // held while marks is written; taken before mu
	mu      sync.Mutex    // guards the following and accept
	seen    store.LogMark // durable in marks
	shown   store.LogMark // the furthest that an answer has shown, which the next write keeps
}

// newWitness is called once for a store: nobody else writes its mark.
func newWitness(ctx context.Context, client *signer.Client, m marks, accept string, log *slog.Logger) (*witness, error) {
	seen, err := m.LogMark(ctx)
	if err != nil {
		return nil, err
	}
	return &witness{Client: client, marks: m, accept: accept, log: log, seen: seen, shown: seen}, nil
}

// Issue returns no certificate whose record is not marked. See issuing.
func (w *witness) Issue(ctx context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	signed, err := w.Sign(ctx, items)
	if err != nil {
		return nil, err
	}
	return signed.Take(ctx)
}

// Sign implements signer.Issuer: what it returns can be taken when it is marked.
func (w *witness) Sign(ctx context.Context, items []*api.SignItem) (signer.Signed, error) {
	resp, err := held(ctx, w, func(seen *api.LogPosition) (*api.SignResponse, error) {
		return w.Client.Issue(ctx, &api.SignRequest{Items: items, Seen: seen})
	})
	if err != nil {
		return signer.Signed{}, err
	}
	return signer.NewSigned(resp.GetResults(), func(ctx context.Context) error { return w.note(ctx, resp.GetLog()) }), nil
}

// Authority fails where the log lacks what was seen.
func (w *witness) Authority(ctx context.Context) (*api.AuthorityResponse, error) {
	resp, err := held(ctx, w, func(seen *api.LogPosition) (*api.AuthorityResponse, error) {
		return w.Client.Authority(ctx, &api.AuthorityRequest{Seen: seen})
	})
	if err == nil {
		err = w.note(ctx, resp.GetLog())
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// held makes a call that holds the signer to what was seen. What the answer shows is
// the caller's to note.
func held[R any](ctx context.Context, w *witness, call func(seen *api.LogPosition) (R, error)) (none R, _ error) {
	for n := 1; ; n++ {
		seen := w.position()
		resp, err := call(seen)
		if status.Code(err) != codes.FailedPrecondition {
			return resp, err
		}
		if judged := w.judge(ctx, seen); judged != nil {
			return none, judged
		}
		if n == mostRefusals {
			return none, err
		}
	}
}

func (w *witness) position() *api.LogPosition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return positionOf(w.seen)
}

// positionOf is nil where nothing was seen yet.
func positionOf(m store.LogMark) *api.LogPosition {
	if m.Sequence == 0 {
		return nil
	}
	return &api.LogPosition{Sequence: m.Sequence, Hash: m.Hash}
}

func markOf(p *api.LogPosition) store.LogMark {
	return store.LogMark{Sequence: p.GetSequence(), Hash: p.GetHash()}
}

// note returns when a position, or a further one, is kept. While one write is under
// way, all whose answers come wait for the next, which is one for all of them.
func (w *witness) note(ctx context.Context, p *api.LogPosition) error {
	m := markOf(p)
	if kept, err := w.show(p, m); kept || err != nil {
		return err
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	next, kept := w.shown, m.Sequence <= w.seen.Sequence
	w.mu.Unlock()
	if kept {
		return nil // by the write that was waited for
	}
	if next.Sequence < m.Sequence { // what was shown was set back meanwhile
		next = m
	}
	if err := w.marks.PutLogMark(ctx, next); err != nil {
		return fmt.Errorf("%w: nothing is issued: %w", fault.Unavailable, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = next
	return nil
}

// show notes what an answer has shown, and reports whether that is kept already.
func (w *witness) show(p *api.LogPosition, m store.LogMark) (kept bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p == nil && w.seen.Sequence > 0 {
		return false, fmt.Errorf("%w: the signer does not say how far its log goes, which it has said before: it is of an older version; update it", fault.Unavailable)
	}
	if m.Sequence > w.shown.Sequence {
		w.shown = m
	}
	return m.Sequence <= w.seen.Sequence, nil
}

// judge returns what the refusal of a call means that named refused as seen. It is
// nil where the call is to be made again: the operator accepts what is there, which
// is then what was seen, or another call has moved what was seen since.
func (w *witness) judge(ctx context.Context, refused *api.LogPosition) error {
	resp, err := w.Client.Authority(ctx, &api.AuthorityRequest{})
	if err != nil {
		return err
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if refused.GetSequence() != w.seen.Sequence || !bytes.Equal(refused.GetHash(), w.seen.Hash) {
		return nil
	}
	gone := &recordsGone{seen: w.seen, head: markOf(resp.GetLog())}
	if w.accept != gone.code() {
		return gone
	}
	detail := fmt.Sprintf("the issuance log ends at record %d (%x); record %d (%x) had been seen", gone.head.Sequence, gone.head.Hash, gone.seen.Sequence, gone.seen.Hash)
	if err := w.marks.ResetLogMark(ctx, "server", detail, gone.head); err != nil {
		return err
	}
	w.log.WarnContext(ctx, "an issuance log that lacks records is accepted, as the operator says", slog.Uint64("log_ends", gone.head.Sequence), slog.Uint64("seen", gone.seen.Sequence))
	w.seen, w.shown, w.accept = gone.head, gone.head, ""
	return nil
}

// unused logs an acceptance that nothing was there for.
func (w *witness) unused(ctx context.Context) {
	if w.accept != "" {
		w.log.WarnContext(ctx, "accept-log was not needed: the issuance log has every record that this server has seen; leave it out")
	}
}

// recordsGone is why nothing is issued: the signer's log ends at head, and seen is
// not in it.
type recordsGone struct{ head, seen store.LogMark }

// code names exactly this refusal, so that who accepts one accepts no other.
func (g *recordsGone) code() string {
	sum := sha256.Sum256(append(append([]byte{}, g.head.Hash...), g.seen.Hash...))
	return fmt.Sprintf("%d-%d-%x", g.head.Sequence, g.seen.Sequence, sum[:4])
}

func (g *recordsGone) Error() string {
	cause := fmt.Sprintf("it ends at record %d, and this server has seen record %d", g.head.Sequence, g.seen.Sequence)
	if g.head.Sequence >= g.seen.Sequence {
		cause = fmt.Sprintf("its record %d is another than the one that this server has seen", g.seen.Sequence)
	}
	return "nothing is issued: records are missing from the signer's issuance log: " + cause
}

// Unwrap has agents try again later.
func (g *recordsGone) Unwrap() error { return fault.Unavailable }

// fix is what the operator does about it.
func (g *recordsGone) fix() string {
	return `put the whole log back; if the signer was restored from a backup and the rest is lost, restart the server once with --accept-log ` +
		g.code() + ` (docs/SIGNER.md, "Records that are gone")`
}

// startFix adds to the error of a start what is to be done about it.
func startFix(err error) error {
	if gone, ok := errors.AsType[*recordsGone](err); ok {
		return fmt.Errorf("%w; %s", err, gone.fix())
	}
	return err
}
