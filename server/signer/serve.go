package signer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/ca"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/decode"
)

const (
	// maxMessage bounds a message between the two: a full batch of CSRs.
	maxMessage = 32 << 20
	// logPage is how many records one read of the log takes.
	logPage = 256
)

// Run serves api.Signer on conn, the server's end of which is its parent's,
// until conn closes or ctx ends, and returns nil for either.
func Run(ctx context.Context, cfg Config, conn net.Conn) error {
	defer func() { _ = conn.Close() }() // it may be closed already
	return serve(ctx, cfg, func() (net.Listener, error) { return listenOnce(conn), nil })
}

// serve opens authority and log, and only then listens. Whoever listen lets
// in may call.
func serve(ctx context.Context, cfg Config, listen func() (net.Listener, error)) error {
	if err := harden(); err != nil {
		return err
	}
	s, err := open(cfg.Complete())
	if err != nil {
		return err
	}
	defer func() { _ = s.records.Close() }() // what was answered is durable
	g := decode.NewServer(
		grpc.Creds(insecure.NewCredentials()),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.WaitForHandlers(true), // before the log closes under them
	)
	api.RegisterSignerServer(g, s)
	l, err := listen()
	if err != nil {
		return fmt.Errorf("listen for the server: %w", err)
	}
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err = g.Serve(l)
	g.Stop()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the signer's socket: %w", err)
	}
	return nil
}

// harden keeps the keys out of core dumps and debuggers of the same user. It must be
// called before a password or a key is read; it holds for the rest of the process.
func harden() error {
	if err := child.KeepSecret(); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("keep keys out of core dumps: RLIMIT_CORE: %w", err)
	}
	return nil
}

// Signer is the service that the process offers.
type Signer struct {
	api.UnimplementedSignerServer
	authority *ca.Authority
	records   *ca.Log
	issuer    *ca.Issuer
	log       *slog.Logger
	known     atomic.Pointer[ca.Position] // what has looked up last
}

// New joins an authority and its log. The log stays the caller's to close.
func New(a *ca.Authority, l *ca.Log, profiles ca.Profiles, log *slog.Logger) *Signer {
	return &Signer{authority: a, records: l, issuer: ca.NewIssuer(a, l, profiles), log: log}
}

func open(cfg Config) (*Signer, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	password, err := readPassword(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	dir := Folder(cfg.DataDir).CA()
	a, err := ca.OpenAuthority(dir, password, cfg.Clock, log)
	clear(password)
	if err != nil {
		return nil, err
	}
	if err := cfg.Profiles.Check(a); err != nil {
		return nil, err
	}
	l, err := ca.OpenLog(ca.LogPath(dir))
	if err != nil {
		return nil, err
	}
	if n := l.Torn(); n > 0 {
		log.Warn("an incomplete last record was cut off the issuance log", slog.Int("bytes", n))
	}
	if l.Unmarked() {
		log.Warn("there was no mark of how far the issuance log goes: one was made for what is there", slog.Uint64("record", l.Size()))
	}
	for _, r := range l.Orphans() {
		log.Warn("reserved but never answered: marked abandoned",
			slog.String("serial", r.Serial), slog.String("spiffe_id", r.ID), slog.Uint64("record", r.Sequence))
	}
	return New(a, l, cfg.Profiles, log), nil
}

// Issue implements api.SignerServer.
func (s *Signer) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	if err := s.has(req.GetSeen()); err != nil {
		return nil, err
	}
	results := make([]*api.SignResult, len(req.GetItems()))
	var requests []ca.Request
	var at []int // where each request's result belongs
	for n, item := range req.GetItems() {
		id, err := identity.ParseID(item.GetSpiffeId())
		if err != nil {
			results[n] = &api.SignResult{Error: err.Error(), Invalid: true}
			continue
		}
		profile, err := profileName(item)
		if err != nil { // a matter of versions, which may pass
			results[n] = &api.SignResult{Error: err.Error()}
			continue
		}
		requests, at = append(requests, ca.Request{
			ID: id, CSR: item.GetCsr(), Lifetime: item.GetLifetime().AsDuration(),
			Profile: profile, Requester: item.GetRequester(),
		}), append(at, n)
	}
	for k, r := range s.issuer.Issue(ctx, requests) {
		result := &api.SignResult{Chain: r.Chain}
		if r.Err != nil {
			result = &api.SignResult{Error: r.Err.Error(), Invalid: errors.Is(r.Err, ca.ErrInvalid)}
			s.log.WarnContext(ctx, "not issued", slog.String("spiffe_id", requests[k].ID.String()),
				slog.String("requester", requests[k].Requester), slog.Any("err", r.Err))
		}
		results[at[k]] = result
	}
	return &api.SignResponse{Results: results, Log: s.position()}, nil
}

// Authority implements api.SignerServer.
func (s *Signer) Authority(_ context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	if err := s.has(req.GetSeen()); err != nil {
		return nil, err
	}
	log := s.position()
	return &api.AuthorityResponse{
		TrustDomain: s.authority.TrustDomain().Name(), SignedRootSet: s.authority.RootSet(),
		Issuing: s.authority.Issuing().Raw, LogOrigin: s.records.Origin(), LogSize: log.GetSequence(), Log: log,
	}, nil
}

func (s *Signer) position() *api.LogPosition {
	p := s.records.Head()
	return &api.LogPosition{Sequence: p.Sequence, Hash: p.Hash[:]}
}

// has returns nil if the log has what the server has seen of it. A position that
// was right stays right as long as this process has the log.
func (s *Signer) has(seen *api.LogPosition) error {
	if seen == nil {
		return nil
	}
	p, err := logPosition(seen)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if known := s.known.Load(); known != nil && *known == p {
		return nil
	}
	err = s.records.Has(p)
	switch {
	case errors.Is(err, ca.ErrCut):
		return status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return status.Error(codes.DataLoss, err.Error())
	}
	s.known.Store(&p)
	return nil
}

func logPosition(p *api.LogPosition) (ca.Position, error) {
	if len(p.GetHash()) != sha256.Size {
		return ca.Position{}, errors.New("seen: the hash has another length")
	}
	return ca.Position{Sequence: p.GetSequence(), Hash: [sha256.Size]byte(p.GetHash())}, nil
}

// ReadLog implements api.SignerServer.
func (s *Signer) ReadLog(req *api.ReadLogRequest, stream grpc.ServerStreamingServer[api.LogRecord]) error {
	for next := max(req.GetFrom(), 1); ; {
		records, err := s.records.Read(next, logPage)
		if err != nil {
			return status.Error(codes.DataLoss, err.Error())
		}
		for _, r := range records {
			if err := stream.Send(logRecord(r)); err != nil {
				return err
			}
		}
		next += uint64(len(records))
		switch {
		case len(records) > 0:
		case !req.GetFollow():
			return nil
		default:
			if _, err := s.records.Wait(stream.Context(), next-1); err != nil {
				return status.FromContextError(err).Err()
			}
		}
	}
}

func logRecord(r ca.Record) *api.LogRecord {
	return &api.LogRecord{
		Sequence: r.Sequence, Time: timestamppb.New(r.Time), Kind: kindOf(string(r.Kind)), KindName: string(r.Kind), Serial: r.Serial,
		SpiffeId: r.ID, Requester: r.Requester, Profile: profileOf(r.Profile), ProfileName: r.Profile,
		NotBefore: timestamppb.New(r.NotBefore), NotAfter: timestamppb.New(r.NotAfter),
		SpkiSha256: r.SPKI, CertificateSha256: r.Certificate,
	}
}
