package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/ca"
	"signet.example/server/signer"
	"signet.example/store"
)

// inProcess is a signer without a process of its own, over the real ca: most
// tests here are not about the process, and opening the key files is slow on
// purpose.
type inProcess struct {
	api.UnimplementedSignerServer
	authority *ca.Authority
	log       *ca.Log
	issuer    *ca.Issuer
}

// silent is whether the signers of RunInProcess keep what they know of their log to
// themselves until the caller has had enough.
var silent atomic.Bool

// Silence does that until the function that it returns is called.
func Silence() (end func()) {
	silent.Store(true)
	return func() { silent.Store(false) }
}

// RunInProcess is Run with such a signer. open is called for the authority.
func RunInProcess(ctx context.Context, cfg Config, log *slog.Logger, open func() (*ca.Authority, error)) error {
	cfg = cfg.Complete()
	unlock, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	authority, err := open()
	if err != nil {
		return err
	}
	records, err := ca.OpenLog(ca.LogPath(signer.Folder(cfg.DataDir).CA()))
	if err != nil {
		return err
	}
	defer func() { _ = records.Close() }() // every record was synced
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	api.RegisterSignerServer(g, &inProcess{authority: authority, log: records, issuer: ca.NewIssuer(authority, records, ca.Profiles{})})
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) }) // ends by Stop
	defer serving.Wait()
	defer g.Stop()
	conn, err := grpc.NewClient("passthrough:///signer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	st, err := store.Open(ctx, dataDir(cfg.DataDir).store())
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }() // every write was committed when it returned
	s, err := load(ctx, cfg, log, st, api.NewSignerClient(conn), time.Now)
	if err != nil {
		return err
	}
	lastRun.Store(s)
	return s.serve(ctx)
}

// OpenCA opens the authority of a data directory that Init made.
func OpenCA(dir string) (*ca.Authority, error) {
	cfg := Config{DataDir: dir}.Complete()
	password, err := os.ReadFile(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	return ca.OpenAuthority(signer.Folder(dir).CA(), bytes.TrimSpace(password), time.Now, slog.New(slog.DiscardHandler))
}

func (s *inProcess) Issue(ctx context.Context, req *api.SignRequest) (*api.SignResponse, error) {
	var requests []ca.Request
	for _, r := range req.GetItems() {
		id, err := spiffeid.FromString(r.GetSpiffeId())
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		requests = append(requests, ca.Request{
			ID: id, CSR: r.GetCsr(), Lifetime: r.GetLifetime().AsDuration(), Profile: r.GetProfile(), Requester: r.GetRequester(),
		})
	}
	out := &api.SignResponse{}
	for _, r := range s.issuer.Issue(ctx, requests) {
		result := &api.SignResult{Chain: r.Chain}
		if r.Err != nil {
			result.Error, result.Invalid = r.Err.Error(), errors.Is(r.Err, ca.ErrInvalid)
		}
		out.Results = append(out.Results, result)
	}
	return out, nil
}

func (s *inProcess) Authority(ctx context.Context, _ *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	if silent.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &api.AuthorityResponse{
		TrustDomain: s.authority.TrustDomain().Name(), SignedRootSet: s.authority.RootSet(),
		Issuing: s.authority.Issuing().Raw, LogOrigin: s.log.Origin(), LogSize: s.log.Size(),
	}, nil
}

func (s *inProcess) ReadLog(req *api.ReadLogRequest, stream grpc.ServerStreamingServer[api.LogRecord]) error {
	next := req.GetFrom()
	for {
		records, err := s.log.Read(next, 100)
		if err != nil {
			return err
		}
		for _, r := range records {
			next = r.Sequence + 1
			if err := stream.Send(&api.LogRecord{
				Sequence: r.Sequence, Time: timestamppb.New(r.Time), Kind: string(r.Kind), Serial: r.Serial, SpiffeId: r.ID,
				Requester: r.Requester, Profile: r.Profile, NotBefore: timestamppb.New(r.NotBefore), NotAfter: timestamppb.New(r.NotAfter),
			}); err != nil {
				return err
			}
		}
		if len(records) > 0 {
			continue
		}
		if !req.GetFollow() {
			return nil
		}
		if _, err := s.log.Wait(stream.Context(), next-1); err != nil {
			return err
		}
	}
}
