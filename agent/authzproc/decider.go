package authzproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signet.example/agent/limits"
	"signet.example/api"
	"signet.example/authz"
	"signet.example/authz/jwt"
	"signet.example/internal/child"
	"signet.example/internal/decode"
	"signet.example/internal/overload"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
	"signet.example/policy"
	"signet.example/proxy"
)

// Run is the authz process: it decides for the connections that the agent
// hands it on passingFD and is told what to decide by on controlFD. It holds
// no key, opens no socket, and ends with the agent.
func Run(ctx context.Context, log *slog.Logger) error {
	if err := confine(ctx, log); err != nil {
		return fmt.Errorf("authz: %w", err)
	}
	// From others they would end it as a failure of its runtime does (exitRuntime).
	// What the kernel sends of these for what the process itself does is still that.
	ctx, ignore := signal.NotifyContext(ctx, unix.SIGQUIT, unix.SIGABRT, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL,
		unix.SIGTRAP, unix.SIGSYS, unix.SIGSTKFLT)
	defer ignore()
	control, err := unixsock.FromFile(os.NewFile(controlFD, "control"))
	if err != nil {
		return fmt.Errorf("authz: %w", err)
	}
	passing, err := unixsock.FromFile(os.NewFile(passingFD, "passing"))
	if err != nil {
		return errors.Join(fmt.Errorf("authz: %w", err), control.Close())
	}
	journal, err := openJournal(os.NewFile(journalFD, "journal"))
	if err != nil {
		return errors.Join(fmt.Errorf("authz: %w", err), control.Close(), passing.Close())
	}
	if err := newDecider(log, journal.begin).run(ctx, control, passing); err != nil {
		return fmt.Errorf("authz: %w", err)
	}
	return nil
}

// confine gives away what the process does not need, and has it ended before the
// one with the keys where memory is short.
func confine(ctx context.Context, log *slog.Logger) error {
	if err := child.Expendable(oomScore); err != nil {
		// As in a sandbox that shows no /proc of its own: the kernel then picks by size.
		log.WarnContext(ctx, "authz cannot ask to be ended first where memory is short", slog.Any("err", err))
	}
	if err := child.Confine(); err != nil {
		return err
	}
	// GOMEMLIMIT makes the collector work harder; past twice of it, dying is better.
	if soft := debug.SetMemoryLimit(-1); soft < math.MaxInt64/4 {
		hard := uint64(2*soft) + 256<<20 //nolint:gosec // positive
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: hard, Max: hard}); err != nil {
			return fmt.Errorf("RLIMIT_DATA: %w", err)
		}
	}
	return nil
}

const (
	// oomScore is added to the kernel's 0 to 1000 for the memory that authz uses.
	oomScore = 500
	// recordBuffer is how many decisions wait for a slow reader before some are dropped.
	recordBuffer = 4096
	recordBatch  = 256
	wantedBuffer = 64
	// recordDelay is how long an allowed decision waits for others: each batch
	// wakes the agent, on the processors that the decisions need.
	recordDelay = 10 * time.Millisecond
	// checkWorkers keep their stacks from one check to the next. In a goroutine of
	// its own each check would grow one from nothing, since evaluation recurses
	// deeply: that was a fifth of the process's time. More checks than workers at
	// a time get goroutines of their own.
	checkWorkers = 32
)

// decider joins the deciding server with its control.
type decider struct {
	api.UnimplementedAuthzControlServer

	log     *slog.Logger
	server  *authz.Server
	records chan *api.Decision
	wanted  chan *api.WantedKey
	dropped atomic.Uint64
	grants  grants

	// mu guards what follows; Configure calls come one at a time.
	mu       sync.Mutex
	compiled map[string]*policy.Compiled
	newest   string // the last one that was sent as such and could be compiled
}

// newDecider takes what is told of each evaluation, or nil.
func newDecider(log *slog.Logger, evaluating func(authz.Evaluation) (yield, end func())) *decider {
	d := &decider{log: log, records: make(chan *api.Decision, recordBuffer), wanted: make(chan *api.WantedKey, wantedBuffer), compiled: map[string]*policy.Compiled{}}
	d.server = authz.New(authz.Options{Record: d.record, Log: log, Evaluating: evaluating, WantKey: d.want})
	return d
}

// record is called by each decision and must not block it.
func (d *decider) record(r authz.Record) {
	select {
	case d.records <- decisionOf(r):
	default:
		d.dropped.Add(1)
	}
}

// want asks for a key. One that is lost is asked for again.
func (d *decider) want(k jwt.UnknownKeyError) {
	select {
	case d.wanted <- &api.WantedKey{Issuer: k.Issuer, KeyId: k.KeyID}:
	default:
	}
}

// run serves until ctx ends or the agent is gone.
func (d *decider) run(ctx context.Context, control, passing *net.UnixConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)

	controls := newHanded()
	controlServer := decode.NewServer(grpc.Creds(insecure.NewCredentials()), grpc.MaxRecvMsgSize(64<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	api.RegisterAuthzControlServer(controlServer, d)
	g.Go(func() error { return controlServer.Serve(controls) })

	checks, room := newHanded(), underway.New(mostChecks)
	checkServer := decode.NewServer(append(room.Options(), grpc.Creds(authz.Credentials()), grpc.ConnectionTimeout(limits.Handshake), grpc.MaxRecvMsgSize(1<<20),
		grpc.MaxConcurrentStreams(proxy.AuthzStreams), grpc.NumStreamWorkers(checkWorkers), grpc.MaxHeaderListSize(16<<10))...)
	authv3.RegisterAuthorizationServer(checkServer, d.server)
	methods := underway.MethodsOf(checkServer)
	g.Go(func() error { return checkServer.Serve(checks) })

	g.Go(func() error { return overload.New(limits.Memory(), room, d.log).Run(ctx) }) // what it was given: GOMEMLIMIT
	g.Go(func() error {
		defer cancel() // the agent is gone: so are we
		return d.take(ctx, passing, checks, room, methods)
	})
	g.Go(func() error {
		<-ctx.Done()
		// No grace: whoever asks is denied, and asks the next process.
		room.Close()
		checkServer.Stop()
		controlServer.Stop()
		return passing.Close()
	})
	controls.give(ctx, control)
	if err := g.Wait(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// take receives the connections that the agent attested.
func (d *decider) take(ctx context.Context, passing *net.UnixConn, to *handed, room *underway.Room, methods underway.Methods) error {
	open := &shares{most: maxAuthzConns, open: map[string]int{}}
	for {
		c, h, err := receive(passing)
		if errors.Is(err, errHandoverEnded) {
			return nil
		}
		if err != nil {
			d.log.WarnContext(ctx, "connection refused", slog.Any("err", err))
			continue
		}
		id, err := spiffeid.FromString(h.Destination)
		if err != nil {
			d.log.WarnContext(ctx, "connection refused", slog.Any("err", errors.Join(err, c.Close())))
			continue
		}
		who := h.Destination + " " + h.Proxy
		counted, err := open.enter(c, who)
		if err != nil {
			d.log.WarnContext(ctx, "connection refused", slog.Any("err", errors.Join(err, c.Close())))
			continue
		}
		kept, err := d.grants.enter(counted, h.Grant)
		if err != nil {
			d.log.WarnContext(ctx, "connection refused", slog.Any("err", errors.Join(err, counted.Close())))
			continue
		}
		bounded := room.Enter(kept, who, func(who string, err error) {
			d.log.WarnContext(ctx, "connection closed", slog.String("proxy", who), slog.Any("err", err))
		})
		bounded.Takes(methods)
		bounded.Known("") // it is a proxy's
		to.give(ctx, authz.NewConn(bounded, authz.Caller{Destination: id, Proxy: h.Proxy}))
	}
}

// Configure compiles what is new and swaps what decisions are made by.
func (d *decider) Configure(ctx context.Context, c *api.AuthzConfig) (*api.AuthzStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	status := &api.AuthzStatus{Errors: map[string]string{}}
	kept := map[string]*policy.Compiled{}
	config := authz.Config{Issuers: issuersOf(c.GetIssuers()), Bans: map[string]bool{}, TokenHashKey: c.GetTokenHashKey()}
	for _, b := range c.GetBans() {
		config.Bans[b.GetSpiffeId()] = true
	}
	config.Stopped, config.Suspect = evaluationsOf(c.GetStopped()), evaluationsOf(c.GetSuspect())
	for _, r := range c.GetRevisions() {
		compiled, err := d.compile(ctx, r)
		if err != nil {
			status.Errors[r.GetId()] = err.Error()
			d.log.ErrorContext(ctx, "policy revision refused", slog.String("policy_rev", r.GetId()), slog.Any("err", err))
			continue
		}
		kept[r.GetId()] = compiled
		config.Policies = append(config.Policies, compiled)
		status.Loaded = append(status.Loaded, r.GetId())
	}
	if n := len(c.GetRevisions()); n > 0 && kept[c.GetRevisions()[n-1].GetId()] != nil {
		d.newest = c.GetRevisions()[n-1].GetId()
	}
	config.Newest = d.newest
	d.compiled = kept
	d.server.Configure(config)
	d.grants.revoke(c.GetRevokedGrants())
	return status, nil
}

func (d *decider) compile(ctx context.Context, r *api.PolicyRevision) (*policy.Compiled, error) {
	if c := d.compiled[r.GetId()]; c != nil {
		return c, nil // an id is a hash of the content
	}
	begun := time.Now()
	c, err := policy.Compile(revisionOf(r))
	if err == nil {
		d.log.InfoContext(ctx, "policy revision loaded", slog.String("policy_rev", r.GetId()), slog.String("commit", r.GetCommit()), slog.String("took", time.Since(begun).Round(time.Microsecond).String()))
	}
	return c, err
}

// Decisions streams the records to the agent, in batches, and which keys are wanted.
func (d *decider) Decisions(_ *api.DecisionsRequest, stream grpc.ServerStreamingServer[api.DecisionBatch]) error {
	for {
		batch := d.batch(stream.Context())
		if batch == nil {
			return nil
		}
		batch.Dropped = d.dropped.Swap(0)
		if err := stream.Send(batch); err != nil {
			return err
		}
	}
}

// batch collects decisions until recordDelay after the first, or until there is
// a denial, which somebody may ask about at once, or a key that a request waits for. It is
// nil when ctx ends.
func (d *decider) batch(ctx context.Context) *api.DecisionBatch {
	all := &api.DecisionBatch{}
	var late <-chan time.Time
	denied := false
	for len(all.Decisions) < recordBatch {
		select {
		case k := <-d.wanted:
			all.WantedKeys = append(all.WantedKeys, k)
			return all
		case r := <-d.records:
			all.Decisions = append(all.Decisions, r)
			denied = denied || !r.GetAllowed()
			if denied && len(d.records) == 0 {
				return all
			}
			if late == nil {
				timer := time.NewTimer(recordDelay)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			return all
		case <-ctx.Done():
			return nil
		}
	}
	return all
}
