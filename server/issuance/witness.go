package issuance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/store"
)

// Process is the signer process, or the service that stands for it. It is asked from many
// goroutines; after an error nothing is known of what was asked.
type Process interface {
	// Issue has a batch signed. The answer has one result for each item, in their order,
	// and what it has of certificates is in the log, durably. A process whose log has not
	// what was seen refuses with FailedPrecondition, as Authority does.
	Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error)
	Authority(ctx context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error)
	// ReadLog calls each with the records from a number on, in their order, until each
	// fails or the log ends, which is nil. With follow the log ends with the signer.
	ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error
}

// Marks is where a witness keeps what it has seen. Writes are durable on return.
type Marks interface {
	LogMark(ctx context.Context) (store.LogMark, error)
	PutLogMark(ctx context.Context, m store.LogMark) error
	ResetLogMark(ctx context.Context, actor, detail string, m store.LogMark) error
}

// mostRefusals is how often one call is made that is refused for the log each time.
const mostRefusals = 3

// Witness is the signer as the rest of the server sees it. It keeps, on the server's
// side, the newest position of the issuance log that it has seen, before anybody
// gets a certificate that is recorded up to there. A signer whose log has that
// position no more issues nothing: certificates are in use of which it has no record.
type Witness struct {
	process Process
	marks   Marks
	accept  string // the refusal that the operator accepts, once; see RecordsGone.Code
	log     *slog.Logger

	failed atomic.Pointer[notIssued] // nil where the last certificates that were asked for came

	writing sync.Mutex    // held while marks is written; taken before mu
	mu      sync.Mutex    // guards the following and accept
	seen    store.LogMark // durable in marks
	shown   store.LogMark // the furthest that an answer has shown, which the next write keeps
}

// notIssued is why certificates that were asked for did not come, by no fault of who asked.
type notIssued struct {
	at  time.Time
	err error
}

// ErrNotKept is returned while this side cannot write down how far the log was seen, as
// where its disk is full: no certificate goes out.
var ErrNotKept = fmt.Errorf("%w: nothing is issued", fault.Unavailable)

// NewWitness is called once for a store: nobody else writes its mark. accept is the code
// of the one refusal that the operator accepts, or empty.
func NewWitness(ctx context.Context, p Process, m Marks, accept string, log *slog.Logger) (*Witness, error) {
	seen, err := m.LogMark(ctx)
	if err != nil {
		return nil, err
	}
	return &Witness{process: p, marks: m, accept: accept, log: log, seen: seen, shown: seen}, nil
}

// Issue implements Issuer: it returns no certificate whose record is not marked.
func (w *Witness) Issue(ctx context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	signed, err := w.Sign(ctx, items)
	if err != nil {
		return nil, err
	}
	return signed.Take(ctx)
}

// Sign implements Signer: what it returns can be taken when it is marked.
func (w *Witness) Sign(ctx context.Context, items []*api.SignItem) (Signed, error) {
	resp, err := held(ctx, w, func(seen *api.LogPosition) (*api.SignResponse, error) {
		return w.process.Issue(ctx, &api.SignRequest{Items: items, Seen: seen})
	})
	if err != nil {
		w.went(ctx, nil, err)
		return Signed{}, err
	}
	return NewSigned(resp.GetResults(), func(ctx context.Context) error {
		err := w.note(ctx, resp.GetLog())
		w.went(ctx, resp.GetResults(), err)
		return err
	}), nil
}

// went remembers how issuing went the last time. A fault of a request says nothing of it,
// and whoever has gone was not waited for.
func (w *Witness) went(ctx context.Context, results []*api.SignResult, err error) {
	came := func(r *api.SignResult) bool { return len(r.GetChain()) > 0 }
	if err == nil && slices.ContainsFunc(results, came) {
		w.failed.Store(nil)
		return
	}
	for _, r := range results {
		if err == nil && r.GetError() != "" && !r.GetInvalid() {
			err = signerError(r)
		}
	}
	if err != nil && ctx.Err() == nil {
		w.failed.Store(&notIssued{time.Now(), err})
	}
}

// Failed returns why the last certificates that were asked for did not come, and when that
// was; nil where they came.
func (w *Witness) Failed() (at time.Time, err error) {
	if f := w.failed.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Authority fails where the log lacks what was seen.
func (w *Witness) Authority(ctx context.Context) (*api.AuthorityResponse, error) {
	resp, err := held(ctx, w, func(seen *api.LogPosition) (*api.AuthorityResponse, error) {
		return w.process.Authority(ctx, &api.AuthorityRequest{Seen: seen})
	})
	if err == nil {
		err = w.note(ctx, resp.GetLog())
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// ReadLog reads the log as it is. See Process.
func (w *Witness) ReadLog(ctx context.Context, from uint64, follow bool, each func(*api.LogRecord) error) error {
	return w.process.ReadLog(ctx, from, follow, each)
}

// held makes a call that holds the signer to what was seen. What the answer shows is
// the caller's to note.
func held[R any](ctx context.Context, w *Witness, call func(seen *api.LogPosition) (R, error)) (none R, _ error) {
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

func (w *Witness) position() *api.LogPosition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return PositionOf(w.seen)
}

// note returns when a position, or a further one, is kept. While one write is under
// way, all whose answers come wait for the next, which is one for all of them.
func (w *Witness) note(ctx context.Context, p *api.LogPosition) error {
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
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = next
	return nil
}

// show notes what an answer has shown, and reports whether that is kept already.
func (w *Witness) show(p *api.LogPosition, m store.LogMark) (kept bool, err error) {
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
func (w *Witness) judge(ctx context.Context, refused *api.LogPosition) error {
	resp, err := w.process.Authority(ctx, &api.AuthorityRequest{})
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
	gone := newRecordsGone(w.seen, resp.GetLog())
	if w.accept != gone.Code() {
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

// Ask holds a signer to what was seen, as a witness would at a start, and returns its
// roots. It writes nothing.
func Ask(ctx context.Context, p Process, seen store.LogMark, accept string) (Roots, error) {
	resp, err := p.Authority(ctx, &api.AuthorityRequest{Seen: PositionOf(seen)})
	if status.Code(err) == codes.FailedPrecondition {
		if resp, err = p.Authority(ctx, &api.AuthorityRequest{}); err == nil {
			err = Judge(seen, resp.GetLog(), accept)
		}
	}
	if err != nil {
		return Roots{}, err
	}
	return ReadRoots(resp, nil)
}

// Unused logs an acceptance that nothing was there for. It is called before anything runs.
func (w *Witness) Unused(ctx context.Context) {
	if w.accept != "" {
		w.log.WarnContext(ctx, "accept-log was not needed: the issuance log has every record that this server has seen; leave it out")
	}
}
