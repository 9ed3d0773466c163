package workloads

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/sds"
)

// takeBackWithin is how long an Envoy that lost its last identity has to take what is put
// into its place.
const takeBackWithin = 3 * time.Second

// Secrets serves plain SDS: to each stream the secrets of its process, by the names that it
// asks for. A name that the process does not have is not answered, and ends nothing; it is
// sent once the process has it. It implements ads.Views.
type Secrets struct {
	source sds.Source
	attest func(context.Context) (identity.Selectors, error)
	log    *slog.Logger
	open   atomic.Int64
}

// NewSecrets serves src. attest finds out, at each answer anew, what the process behind a
// call's context is.
func NewSecrets(src sds.Source, attest func(context.Context) (identity.Selectors, error), log *slog.Logger) *Secrets {
	return &Secrets{source: src, attest: attest, log: log}
}

// Open is how many streams there are.
func (s *Secrets) Open() int { return int(s.open.Load()) }

// held stands before one stream: it has a view of its own, since whoever else has the same
// secrets today may have others tomorrow.
type held struct {
	grpc.ServerStream

	ctx    context.Context //nolint:containedctx // grpc.ServerStream's own contract
	cancel context.CancelCauseFunc
	attest func(context.Context) (identity.Selectors, error)
	view   *ads.View

	mu  sync.Mutex
	has identity.Selectors // of the process when the view was last made; guarded by mu
}

type heldKey struct{}

var (
	errAnother     = errors.New("the process is not what it was when it was given its secrets")
	errUnattested  = errors.New("the process could not be attested")
	errEndOfStream = errors.New("the stream has ended")
)

// Guard is the interceptor of the streams. What a process sends is decoded once it is known
// to have an identity.
func (s *Secrets) Guard(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	s.open.Add(1)
	defer s.open.Add(-1)
	ctx, cancel := context.WithCancelCause(stream.Context())
	h := &held{ServerStream: stream, cancel: cancel, attest: s.attest, view: ads.NewView("secrets", ads.Proxy)}
	h.ctx = context.WithValue(ctx, heldKey{}, h)
	first := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errEndOfStream)
	wg.Go(func() { cancel(s.follow(ctx, h, sync.OnceFunc(func() { close(first) }))) })
	select {
	case <-first:
	case <-ctx.Done():
		return s.status(stream.Context(), context.Cause(ctx))
	}
	err := next(srv, h)
	if ctx.Err() != nil {
		return s.status(stream.Context(), context.Cause(ctx))
	}
	return err
}

// follow publishes what the process has, until it has nothing any more or the stream ends.
// first is called when there is something.
func (s *Secrets) follow(ctx context.Context, h *held, first func()) error {
	var plain sds.Plain
	given := false
	attested := func(ctx context.Context) (identity.Selectors, error) {
		has, err := s.attest(ctx)
		if err != nil {
			return nil, errors.Join(errUnattested, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.has = has
		return has, nil
	}
	err := s.source.Watch(ctx, attested, func(u sds.Update) error {
		set, err := plain.Next(u, time.Now())
		if err != nil {
			return err
		}
		h.view.Publish(set)
		given = true
		first()
		return nil
	})
	if !given || !errors.Is(err, sds.ErrNoIdentity) {
		return err
	}
	set, failed := plain.Nothing(time.Now())
	if failed != nil {
		return errors.Join(err, failed)
	}
	h.view.Publish(set)
	wait := time.NewTimer(takeBackWithin)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	return err
}

// status is how a stream ends. The process is told no more than that it has nothing.
func (s *Secrets) status(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, sds.ErrNoIdentity), errors.Is(err, errUnattested):
		return status.Error(codes.PermissionDenied, sds.ErrNoIdentity.Error())
	case errors.Is(err, sds.ErrUnavailable):
		return status.Error(codes.Unavailable, "the agent cannot answer yet")
	case errors.Is(err, errAnother):
		return status.Error(codes.Unavailable, errAnother.Error())
	}
	s.log.ErrorContext(ctx, "xds.sock: stream of secrets ended", slog.Any("err", err))
	return status.Error(codes.Internal, "the agent failed to answer")
}

// View implements ads.Views: the node says nothing that counts.
func (s *Secrets) View(ctx context.Context, _ *corev3.Node) (*ads.View, error) {
	h, ok := ctx.Value(heldKey{}).(*held)
	if !ok {
		return nil, status.Error(codes.Internal, "internal error: a stream without its guard")
	}
	return h.view, nil
}

// Context implements grpc.ServerStream.
func (h *held) Context() context.Context { return h.ctx }

// SendMsg lets an answer pass only to the process that the secrets are for, as it is now: it
// may have become another one, which has nothing of what made it fit.
func (h *held) SendMsg(m any) error {
	now, err := h.attest(h.ctx)
	h.mu.Lock()
	has := h.has
	h.mu.Unlock()
	switch {
	case err != nil:
		err = errors.Join(errUnattested, err)
	case !now.Contains(has):
		err = errAnother
	default:
		return h.ServerStream.SendMsg(m)
	}
	h.cancel(err)
	return err
}
