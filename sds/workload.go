package sds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/identity"
)

// WorkloadAPI serves the SPIFFE Workload API's X.509 profile. The JWT and WIT
// profiles answer Unimplemented.
type WorkloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	source Source
	attest func(context.Context) (identity.Selectors, error)
	log    *slog.Logger
}

// NewWorkloadAPI serves src. attest finds out, at each call anew, what the
// process behind a call's context is.
func NewWorkloadAPI(src Source, attest func(context.Context) (identity.Selectors, error), log *slog.Logger) *WorkloadAPI {
	return &WorkloadAPI{source: src, attest: attest, log: log}
}

// Register makes g answer for the API.
func (w *WorkloadAPI) Register(g *grpc.Server) { workload.RegisterSpiffeWorkloadAPIServer(g, w) }

// FetchX509SVID streams the caller's SVIDs with their keys (Workload API 5.2.1).
func (w *WorkloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return watch(w, stream, svidResponse)
}

// FetchX509Bundles streams the bundles that the caller may trust (Workload API
// 5.2.2). A process without an identity is entitled to none.
func (w *WorkloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return watch(w, stream, bundlesResponse)
}

// watch runs one stream: each Update becomes a full message (Workload API 4.3),
// sent unless it equals the one before. An error ends the stream, which tells
// the caller that all it had is taken away (Workload API 5.2.1).
func watch[M any, P interface {
	*M
	proto.Message
}](w *WorkloadAPI, stream grpc.ServerStreamingServer[M], encode func(Update) (P, error)) error {
	ctx := stream.Context()
	if err := CheckHeader(ctx); err != nil {
		return err
	}
	attested := false
	selectors := func(ctx context.Context) (identity.Selectors, error) {
		s, err := w.attest(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotAttested, err)
		}
		attested = true
		return s, nil
	}
	var last [sha256.Size]byte
	err := w.source.Watch(ctx, selectors, func(u Update) error {
		if !attested {
			return errors.New("internal error: an answer without a fresh attestation")
		}
		attested = false
		m, err := encode(u)
		if err != nil {
			return err
		}
		sum, err := digest(m)
		if err != nil || sum == last {
			return err
		}
		last = sum
		return stream.Send(m)
	})
	return w.status(ctx, err)
}

var errNotAttested = errors.New("the process could not be attested")

// status returns the code of an error (SPIFFE Workload Endpoint 6). The caller is
// told nothing about what others may have; the log is.
func (w *WorkloadAPI) status(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, ErrNoIdentity):
		return status.Error(codes.PermissionDenied, ErrNoIdentity.Error())
	case errors.Is(err, errNotAttested):
		return status.Error(codes.PermissionDenied, ErrNoIdentity.Error())
	case errors.Is(err, ErrUnavailable):
		w.log.WarnContext(ctx, "workload api: not available", slog.Any("err", err))
		return status.Error(codes.Unavailable, "the agent cannot answer yet")
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	w.log.ErrorContext(ctx, "workload api: stream ended", slog.Any("err", err))
	return status.Error(codes.Internal, "the agent failed to answer")
}

func svidResponse(u Update) (*workload.X509SVIDResponse, error) {
	if len(u.SVIDs) == 0 {
		return nil, ErrNoIdentity
	}
	m := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	own, hints := map[string]bool{}, map[string]bool{}
	for _, s := range u.SVIDs {
		key, err := x509.MarshalPKCS8PrivateKey(s.Key)
		if err != nil {
			return nil, fmt.Errorf("encode the key of %s: %w", s.ID, err)
		}
		td := s.ID.TrustDomain().IDString()
		bundle := u.Bundles[td]
		if len(s.Chain) == 0 || len(bundle) == 0 {
			// Workload API 4.5: these fields are mandatory.
			return nil, fmt.Errorf("%s has no chain or no bundle: %w", s.ID, ErrUnavailable)
		}
		own[td] = true
		hint := s.Hint
		if hints[hint] {
			hint = "" // Workload API 5.2.1: a hint is unique in its message.
		}
		hints[hint] = true
		m.Svids = append(m.Svids, &workload.X509SVID{
			SpiffeId:    s.ID.String(),
			X509Svid:    bytes.Join(s.Chain, nil),
			X509SvidKey: key,
			Bundle:      bytes.Join(bundle, nil),
			Hint:        hint,
		})
	}
	for td, roots := range u.Bundles {
		if !own[td] {
			m.FederatedBundles[td] = bytes.Join(roots, nil)
		}
	}
	return m, nil
}

func bundlesResponse(u Update) (*workload.X509BundlesResponse, error) {
	if len(u.SVIDs) == 0 {
		return nil, ErrNoIdentity
	}
	m := &workload.X509BundlesResponse{Bundles: map[string][]byte{}}
	for td, roots := range u.Bundles {
		if len(roots) > 0 {
			m.Bundles[td] = bytes.Join(roots, nil)
		}
	}
	// Workload API 5.2.2: at least the bundle of the server's own trust domain.
	if own := u.SVIDs[0].ID.TrustDomain().IDString(); m.Bundles[own] == nil {
		return nil, fmt.Errorf("no bundle of %s: %w", own, ErrUnavailable)
	}
	return m, nil
}

// digest distinguishes messages without keeping a copy of their keys.
func digest(m proto.Message) ([sha256.Size]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("encode the answer: %w", err)
	}
	return sha256.Sum256(b), nil
}
