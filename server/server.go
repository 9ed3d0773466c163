package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/durable"
	"signet.example/internal/overload"
	"signet.example/internal/plain"
	"signet.example/internal/private"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
	"signet.example/policy/repo"
	"signet.example/server/access"
	"signet.example/server/conns"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/model"
	"signet.example/server/policies"
	"signet.example/server/refused"
	"signet.example/server/roster"
	"signet.example/server/signer"
	"signet.example/server/views"
	"signet.example/store"
)

// stopGrace is how long calls may take to end when the server stops.
const stopGrace = time.Second

// Run starts the server and serves until ctx ends. It returns nil for an orderly
// stop, and the first error of a part that cannot go on otherwise.
//
// Order of start: lock, store, signer, authority, what is stored (agents, model,
// policy, issuer keys, endpoints), own certificate, listeners, addresses.json.
// Nothing listens before everything it answers from is there. Order of stop: the
// reverse; agents keep what they have.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	cfg = cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := cfg.guarded(private.Self()); err != nil {
		return fmt.Errorf("the server's files: %w", err)
	}
	unlock, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	reached, err := cfg.signer().Reach(ctx, log)
	if err != nil {
		return fmt.Errorf("reach the signer: %w", err)
	}
	defer func() { _ = reached.Close() }() // a child's end is ours: nothing is signed any more
	return run(ctx, cfg, log, reached.Client(), time.Now)
}

// lockFile is locked by the server that uses a data directory.
const lockFile = "lock"

// lockDir keeps two servers from one data directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := durable.Lock(f); err != nil {
		_ = f.Close() // never locked
		if errors.Is(err, durable.ErrLocked) {
			err = fmt.Errorf("%s is in use by another server", dir)
		}
		return nil, err
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// run is Run with the signer given.
func run(ctx context.Context, cfg Config, log *slog.Logger, client *signer.Client, clock func() time.Time) error {
	st, err := store.Open(ctx, dataDir(cfg.DataDir).store())
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer func() { _ = st.Close() }() // every write was committed when it returned
	c, err := alone(dataDir(cfg.DataDir), clock, log)
	if err != nil {
		log.WarnContext(ctx, "cache lost", slog.Any("err", err))
	}
	s, err := load(ctx, cfg, log, st, client, clock, c)
	if err != nil {
		return err
	}
	return s.serve(ctx)
}

// load makes the parts and reads what they had.
func load(ctx context.Context, cfg Config, log *slog.Logger, st *store.Store, client *signer.Client, clock func() time.Time, c common) (*server, error) {
	w, err := issuance.NewWitness(ctx, client, st, cfg.AcceptLog, log)
	if err != nil {
		return nil, err
	}
	s := &server{
		cfg: cfg, dir: dataDir(cfg.DataDir), log: log, clock: clock, store: st, signer: w, signing: issuance.NewQueue(w),
		metrics: newMetrics(), stopping: make(chan struct{}), large: watched.NewSignal(),
		common: c, started: clock(), readMemory: policies.Memory,
	}
	s.refusals = access.NewRefusals(clock, s.audit)
	changed := watched.NewSignal() // what views are made of
	s.authority = issuance.NewAuthority(w, changed.Wake, log)
	if err := s.authority.Load(ctx); err != nil {
		return nil, issuance.StartFix(err)
	}
	w.Unused(ctx)
	s.td = s.authority.Roots().Set.TrustDomain
	if cfg.TrustDomain != "" && cfg.TrustDomain != s.td.Name() {
		return nil, fmt.Errorf("trust_domain is %q in the configuration and %q in the CA of %s", cfg.TrustDomain, s.td.Name(), cfg.DataDir)
	}
	if err := s.loadState(ctx, changed); err != nil {
		return nil, err
	}
	id, err := identity.ForServer(s.td, cfg.Name)
	if err != nil {
		return nil, err
	}
	s.own = issuance.NewOwn(issuance.OwnConfig{ID: id, Issuer: w, Roots: s.authority.Roots, Log: log, Clock: clock, Exchanged: s.metrics.exchanged})
	if err := s.own.Renew(ctx); err != nil {
		return nil, err
	}
	s.metrics.registry.MustRegister(gauges{s})
	return s, nil
}

// loadState reads what is stored, and makes the parts that depend on it: those that
// views are made of, which say when they changed, before the views.
func (s *server) loadState(ctx context.Context, changed watched.Signal) error {
	s.roster = roster.New(roster.Config{Store: s.store, Place: s.place, Principal: nodes.Principal, Takes: s.cfg.Join.Takes})
	if err := s.roster.Load(ctx); err != nil {
		return err
	}
	s.tellShutOut(ctx)
	s.issued = issuance.NewLog(s.signer, s.clock, s.log)
	joining, err := issuersOf(s.cfg.Join)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s.issuers = issuers.New(issuers.Config{
		List: func() []jwt.Issuer { return slices.Concat(s.model().Issuers(), joining) }, Shared: s.common.keys,
		Changed: changed.Wake, Log: s.log, Clock: s.clock, Failures: s.metrics.jwksErrors,
	})
	if err := s.openCloudMap(ctx, changed); err != nil {
		return err
	}
	s.endpoints = fleet.NewEndpoints(fleet.EndpointsConfig{
		Shared: s.common.fleet, Grace: s.cfg.EndpointGrace, Hosts: sources{model: s.model, roster: s.roster}, Clock: s.clock,
		Changed: func() { s.arrive(); changed.Wake(); s.found.Renew() },
	})
	s.sessions = fleet.NewSessions(fleet.SessionsConfig{
		Server: s.cfg.Name, Shared: s.common.fleet, Reports: reports{s}, Log: s.log,
		Wanted: func(agent string, k *api.WantedKey) { s.issuers.Want(agent, k.GetIssuer(), k.GetKeyId()) },
	})
	s.statuses = fleet.Statuses{
		TrustDomain: s.td, Joined: s.roster.All, Sessions: s.sessions, Endpoints: s.endpoints,
		Own:      func(id string) fleet.OwnCert { return fleet.OwnCert(s.issued.NewestOf(id)) },
		Lifetime: s.cfg.Lifetimes.Agent, Started: s.started, Clock: s.clock, Withheld: s.withheld,
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s.policies = policies.New(policies.Config{
		TrustDomain: s.td, Shared: s.common.policy, Activating: s.common.activating, Store: s.store, Agents: s.sessions, Dir: s.dir.git(), Changed: changed.Wake, Log: s.log, Clock: s.clock, Failures: s.metrics.policyErrors,
		Look: func() policies.Look {
			m := s.model()
			return policies.Look{Revision: m.Revision(), Sources: m.Sources(), Graph: m.Graph()}
		},
		Read: func(ctx context.Context, src repo.Source, dir, failed string) (policies.Reading, error) {
			login, err := s.cfg.policyLogin(src.URL)
			if err != nil {
				return policies.Reading{}, fmt.Errorf("fetch: policy source %s: %w", src.Name, err)
			}
			return policies.Read(ctx, exe, s.readMemory, src, login, dir, failed)
		},
	})
	s.access = access.New(access.Config{
		TrustDomain: s.td, Roots: s.authority.Roots, Roster: s.roster, Hosts: func() groups.Hosts { return s.model().Groups().Hosts },
		Principal: nodes.Principal, Clock: s.clock, Log: s.log, Refused: s.metrics.refused, TurnedAway: s.refusals.Refused,
	})
	s.instances = fleet.NewInstances(fleet.InstancesConfig{Shared: s.common.fleet, Sessions: s.sessions, Streams: s.access, Tell: s.tellClash, Clock: s.clock})
	s.access.Instances = s.instances
	s.departing = s.ofTasks()
	s.views = views.New(views.Config{
		TrustDomain: s.td, SVIDLifetime: s.cfg.Lifetimes.SVID, PostQuantum: s.cfg.requiresPostQuantum, Log: s.log,
		Metrics: views.Metrics{Published: s.metrics.published, BuildErrors: s.metrics.buildErrors, Rebuild: s.metrics.rebuild},
		Memory:  s.dir.refused(),
		Refused: func(ctx context.Context, r refused.Refusal, of int) {
			s.refusals.Reported(ctx, fleet.IDOf(s.td, r.Agent), fmt.Sprintf("%s: %d resources, such as %s %s version %s: %s", r.Node, of, r.Type, plain.Text(r.Name), plain.Text(r.Version), r.Message))
		},
	}, sources{s.model, s.authority.Roots, s.roster, s.endpoints, s.common.awaited, s.policies, s.issuers, s.found}, follows{s.access}, changed)
	if err := s.views.Remember(); err != nil {
		s.log.WarnContext(ctx, "cache lost", slog.Any("err", err))
	}
	rows, revision, err := s.store.Objects(ctx)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	first, err := model.Load(s.td, rows, revision)
	if err != nil {
		return err
	}
	s.install(ctx, first)
	return s.policies.Load(ctx)
}

// serve listens and runs everything until ctx ends or a part fails.
func (s *server) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	attestors, err := nodes.Open(s.cfg.Join, nodes.Server{JoinTokens: s.store, Platforms: s.vouching()})
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	agents, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	defer func() { _ = agents.Close() }() // closed already where gRPC served it
	connections := conns.Listen(agents, s.metrics.tooMany)
	s.access.Connections = connections
	adminL, err := unixsock.Listen(ctx, s.cfg.AdminSocket, 0o600)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	defer func() { _ = adminL.Close() }()
	where := Addresses{TrustDomain: s.td.Name(), Agents: agents.Addr().String(), Admin: s.cfg.AdminSocket}
	if s.cfg.Metrics != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Metrics)
		if err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
		where.Metrics = l.Addr().String()
		g.Go(func() error { return s.httpFace(work, l) })
	}
	room := underway.New(mostUnread)
	for _, part := range []func(context.Context) error{
		overload.New(overload.Memory()/2, room, s.log).Run,
		s.watch, s.watchJoins, s.views.Run, s.policies.Run, s.policies.RunStamp, s.issuers.Run, s.found.Run, s.own.Run, s.signing.Run, s.issued.Run, s.authority.Run, s.common.keep,
		s.endpoints.Run, s.sessions.Run, s.withdraw, s.instances.Run, s.refusals.Run, s.departing.Run, s.runRetention, s.giveBack,
	} {
		g.Go(func() error { return part(work) })
	}
	faces := []face{
		{s.agentServer(attestors, connections, room), connections},
		{s.operators().GRPC(), adminL},
	}
	for _, f := range faces {
		g.Go(f.serve)
	}
	if err := durable.WriteJSON(s.dir.addresses(), where); err != nil {
		s.log.ErrorContext(ctx, "addresses not written", slog.Any("err", err))
	}
	if err := unixsock.NotifyReady(ctx); err != nil {
		s.log.ErrorContext(ctx, "the service manager was not told", slog.Any("err", err))
	}
	s.ready.Store(true)
	s.log.InfoContext(ctx, "ready", slog.String("trust_domain", s.td.Name()),
		slog.String("agents", where.Agents), slog.String("admin", where.Admin), slog.String("metrics", where.Metrics))
	g.Go(func() error {
		<-ctx.Done()
		s.stop(faces, room, stopWork)
		return nil
	})
	return g.Wait()
}
