package server

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"signet.example/api"
	"signet.example/ca"
	"signet.example/server/signer"
	"signet.example/store"
)

// inProcess is a signer without a process of its own, over the real ca: most
// tests here are not about the process, and opening the key files is slow on
// purpose.
type inProcess struct{ *signer.Signer }

// silent is whether the signers of RunInProcess keep what they know of their log to
// themselves until the caller has had enough.
var silent atomic.Bool

// Silence does that until the function that it returns is called.
func Silence() (end func()) {
	silent.Store(true)
	return func() { silent.Store(false) }
}

// PolicyMemory is how much the processes that read policies may use.
func PolicyMemory(bytes uint64) func(*server) {
	return func(s *server) { s.readMemory = bytes }
}

// RunInProcess is Run with such a signer. open is called for the authority.
func RunInProcess(ctx context.Context, cfg Config, log *slog.Logger, open func() (*ca.Authority, error), options ...func(*server)) error {
	return inProcessWith(ctx, cfg, log, open, func(cfg Config, st *store.Store, client *signer.Client, c common) error {
		s, err := load(ctx, cfg, log, st, client, time.Now, c)
		if err != nil {
			return err
		}
		for _, set := range options {
			set(s)
		}
		lastRun.Store(s)
		return s.serve(ctx)
	})
}

// RunTwoInProcess runs two servers that have one store, of the first, one signer, and what
// is shared.
func RunTwoInProcess(ctx context.Context, cfgs [2]Config, log *slog.Logger, open func() (*ca.Authority, error)) error {
	if err := os.Mkdir(cfgs[1].DataDir, 0o700); err != nil {
		return err
	}
	return inProcessWith(ctx, cfgs[0], log, open, func(cfg Config, st *store.Store, client *signer.Client, c common) error {
		var both errgroup.Group
		for i, cfg := range []Config{cfg, cfgs[1].Complete()} {
			if i > 0 {
				c.keep = func(ctx context.Context) error { <-ctx.Done(); return nil } // the first does
			}
			s, err := load(ctx, cfg, log, st, client, time.Now, c)
			if err != nil {
				return err
			}
			lastRun.Store(s)
			both.Go(func() error { return s.serve(ctx) })
		}
		return both.Wait()
	})
}

// inProcessWith hands over what servers are made with that have such a signer.
func inProcessWith(ctx context.Context, cfg Config, log *slog.Logger, open func() (*ca.Authority, error), serve func(Config, *store.Store, *signer.Client, common) error) error {
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
	api.RegisterSignerServer(g, inProcess{signer.New(authority, records, ca.Profiles{}, log)})
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
	c, err := alone(dataDir(cfg.DataDir), time.Now, log)
	if err != nil {
		log.WarnContext(ctx, "cache lost", slog.Any("err", err))
	}
	return serve(cfg, st, signer.NewClient(conn), c)
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

// Authority is the signer's, unless it is silenced.
func (s inProcess) Authority(ctx context.Context, req *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	if silent.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Signer.Authority(ctx, req)
}
