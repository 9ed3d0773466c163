package authzproc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"signet.example/agent/answered"
	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/authz"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/retry"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

const (
	// See retry.Policy.
	authzRestartFirst = 10 * time.Millisecond
	authzRestartMost  = 5 * time.Second
	authzSettled      = 5 * time.Second
	// configureTimeout is several times what the largest policies take to compile on
	// a busy machine. Meanwhile a running process decides by what it has.
	configureTimeout = 2 * time.Minute
	// maxRevisions bounds what the process compiles, whatever views are stamped with.
	maxRevisions = 16
	// maxRevoked bounds the list of what a running process is told to end.
	maxRevoked = 4096
)

// Process runs the process that decides, tells it what to decide by, hands
// it the connections of attested proxies, and keeps its records. When that
// process dies nothing else here is touched, and all is denied until it is back.
type Process struct {
	settings Config
	log      *slog.Logger
	metrics  *Metrics
	state    *watched.Value[*resources.Snapshot]
	ring     *ring
	hashKey  []byte

	// loaded are the revisions that the running process has compiled; empty while
	// there is none.
	loaded watched.Value[[]string]
	// over is where connections go to the running, configured process; nil while
	// there is none.
	over watched.Value[*handoverTo]
	// stamps are the revisions that views need, by who needs them.
	stamps watched.Value[map[any][]string]

	// known are revisions that were seen, for views that are still stamped with
	// one which the server no longer sends. Owned by the goroutine of once.
	known map[string]*api.PolicyRevision
	// blame is what ended processes; it lives here, since they do not remember.
	// Owned by the goroutine of once.
	blame blame
	// stopped are the evaluations of blame that are not made for now, and until when.
	stopped watched.Value[map[authz.Evaluation]time.Time]
}

// Config is what the process is run with.
type Config struct {
	// Executable is the signet program, run as `signet authz`.
	Executable string
	// User whom it runs as; nil is our own.
	User *child.User
	// Spare has it run, instead, as a user that nobody else is at its start.
	Spare bool
	// MemoryLimit in MiB that its collector keeps it under.
	MemoryLimit int64
	// State is what the servers told the agent for itself; nil before the first.
	State *watched.Value[*resources.Snapshot]
	// Wanted takes which keys of load balancers a request needs that are not here. It must
	// not block.
	Wanted func(*api.WantedKey)
	// Answered takes what is denied, too, for a day.
	Answered *answered.Day
	Metrics  *Metrics
	Log      *slog.Logger
}

// Record keeps the record of a decision, and counts it; or of what a proxy could not carry.
func (a *Process) Record(d *api.Decision) {
	if !d.NotCarried() {
		a.metrics.decisions.Observe(counted(d))
	}
	a.ring.add(d)
	if !d.GetAllowed() {
		a.settings.Answered.Add(d)
	}
}

// Decision is what is kept of one, by its id; nil where that is nothing.
func (a *Process) Decision(id string) *api.Decision {
	if d := a.ring.get(id); d != nil {
		return d
	}
	return a.settings.Answered.Get(id)
}

// Decisions are those that are kept, of each caller and callee in turn.
func (a *Process) Decisions(f *api.DecisionFilter) []*api.Decision {
	if f.GetResult() == api.DecisionFilter_ANSWERED {
		return bounded(a.settings.Answered.List(f), f)
	}
	return a.ring.list(f)
}

// Stopped returns the evaluations that are not made for now, as findings, and a channel
// that is closed when these are others.
func (a *Process) Stopped() ([]*api.AgentFinding, <-chan struct{}) {
	stopped, changed := a.stopped.Get()
	return stoppedFindings(stopped), changed
}

// Gate is the accepting side, for peers that attestor knows.
func (a *Process) Gate(attestor *attestation.Attestor, nodeOf func(*attestation.Peer) proxy.Ref, users Users, refused prometheus.Counter) *Gate {
	return &Gate{attestor: attestor, state: a.state, over: &a.over, nodeOf: nodeOf, users: users, refused: refused, log: a.log}
}

// handoverTo is the way to one running process.
type handoverTo struct {
	conn  *net.UnixConn
	state *watched.Value[*resources.Snapshot]
	mu    sync.Mutex
	// granted is what its connections were attested for, by number; revoked are the
	// numbers of what is granted no longer. Guarded by mu.
	granted map[grant]uint64
	revoked []uint64
	last    uint64
}

// grant is what a connection was handed over by: a binding as it was then, since
// one whose selectors change may fit its old peers no longer.
type grant struct{ binding, selectors string }

func grantOf(b identity.Binding, id spiffeid.ID) grant {
	return grant{b.Name + "\n" + id.String(), strings.Join(b.Selectors.Strings(), "\n")}
}

// New returns one that runs no process yet.
func New(c Config) (*Process, error) {
	a := &Process{
		settings: c, log: c.Log, metrics: c.Metrics, state: c.State,
		ring: newRing(ringCount, ringBytes), hashKey: make([]byte, 32), known: map[string]*api.PolicyRevision{},
	}
	if _, err := rand.Read(a.hashKey); err != nil {
		return nil, fmt.Errorf("authz: %w", err)
	}
	a.stamps.Set(map[any][]string{})
	return a, nil
}

// Loaded implements Policies.
func (a *Process) Loaded() ([]string, <-chan struct{}) { return a.loaded.Get() }

// Stamp implements Policies.
func (a *Process) Stamp(l any, revisions []string) {
	a.stamps.Update(func(old map[any][]string) map[any][]string {
		next := make(map[any][]string, len(old)+1)
		maps.Copy(next, old)
		if next[l] = revisions; len(revisions) == 0 {
			delete(next, l)
		}
		return next
	})
}

// Run starts the process again and again until ctx ends.
func (a *Process) Run(ctx context.Context) error {
	restart := retry.Tries{Policy: retry.Policy{First: authzRestartFirst, Most: authzRestartMost, Settled: authzSettled}}
	for {
		begun := time.Now()
		err := a.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := restart.Failed(time.Since(begun), nil)
		if errors.As(err, new(errStuck)) {
			pause = authzRestartFirst // what ended it will not do so again
		}
		a.metrics.restarts.Inc()
		a.log.ErrorContext(ctx, "authz process ended, restarting", slog.Any("err", err), slog.Duration("pause", pause))
		if !watched.Sleep(ctx, pause) {
			return nil
		}
	}
}

// once runs one process to its end.
func (a *Process) once(ctx context.Context) error {
	control, controlFile, err := unixsock.Pair(unix.SOCK_STREAM, "authz control")
	if err != nil {
		return err
	}
	passing, passingFile, err := unixsock.Pair(unix.SOCK_SEQPACKET, "authz passing")
	if err != nil {
		return errors.Join(err, control.Close(), controlFile.Close())
	}
	journal, journalFile, err := newJournal()
	if err != nil {
		return errors.Join(err, control.Close(), controlFile.Close(), passing.Close(), passingFile.Close())
	}
	defer func() { _ = journal.Close() }() // nothing reads it any more
	running, err := a.start(ctx, controlFile, passingFile, journalFile)
	if err = errors.Join(err, controlFile.Close(), passingFile.Close(), journalFile.Close()); err != nil {
		if running != nil {
			running.Stop(0)
		}
		return errors.Join(err, control.Close(), passing.Close())
	}
	conn, err := overConn(control)
	if err != nil {
		running.Stop(0)
		return errors.Join(err, control.Close(), passing.Close())
	}
	defer func() {
		// No new connection goes there; those under way fail with the process.
		a.over.Set(nil)
		a.loaded.Set(nil)
		_ = conn.Close()    // its peer is gone
		_ = control.Close() // closed by conn where it was ever used
		_ = passing.Close()
	}()
	g, gctx := errgroup.WithContext(ctx)
	client := api.NewAuthzControlClient(conn)
	g.Go(func() error {
		return a.configure(gctx, client, &handoverTo{conn: passing, state: a.state, granted: map[grant]uint64{}})
	})
	g.Go(func() error { return a.collect(gctx, client) })
	g.Go(func() error { return watch(gctx, journal, CPUOf(running.PID())) })
	g.Go(func() error {
		select {
		case <-running.Done():
			return fmt.Errorf("pid %d: %w", running.PID(), cmp.Or(running.Err(), child.ErrExited))
		case <-gctx.Done():
			running.Stop(0) // it has nothing to finish
			return nil
		}
	})
	err = g.Wait()
	if ctx.Err() == nil && !errors.Is(err, errBindingTaken) {
		err = errors.Join(err, running.Err()) // it has ended
		a.learn(ctx, err, journal.entries())
	}
	return err
}

// learn notes what ended the process, so that the next one does not end by it.
func (a *Process) learn(ctx context.Context, err error, underway map[int]entry) {
	stopped := a.blame.learn(err, underway, time.Now())
	all := a.blame.those(true)
	for _, e := range stopped {
		a.metrics.stopped.Inc()
		a.log.ErrorContext(ctx, "an evaluation ended the authz process: calls to this destination are answered with an error for a time, or until the policy changes",
			slog.String("spiffe_id", e.Destination), slog.String("policy_rev", e.Revision), slog.Time("until", all[e]))
	}
	if len(stopped) > 0 {
		a.stopped.Set(all)
	}
}

var errBindingTaken = errors.New("a binding was taken away")

func (a *Process) start(ctx context.Context, files ...*os.File) (*child.Process, error) {
	// GOGC: what lives is a few MiB, so that by default a hundred decisions or so
	// start a collection. The limit bounds it where policies are large.
	env := child.OwnEnv(fmt.Sprintf("GOMEMLIMIT=%dMiB", a.settings.MemoryLimit), "GOGC=400", "GOTRACEBACK=single")
	user := a.settings.User
	if a.settings.Spare {
		u, err := child.SpareUser()
		if err != nil {
			return nil, err
		}
		user = &u
	}
	log := a.log.With(slog.String("process", "authz"))
	output := child.Lines(func(line string) { child.LogLine(ctx, log, line) })
	p, err := child.Start(child.Spec{
		Path: a.settings.Executable, Args: []string{"authz", "--log-format", "json"}, Confines: true,
		Env: env, Files: files, Stdout: output, Stderr: output, User: user,
		Begun: func(int) (func(), error) {
			return func() { _ = output.Close() }, nil // an io.Pipe does not fail
		},
	})
	if err != nil {
		return nil, errors.Join(err, output.Close())
	}
	return p, nil
}

// overConn makes a gRPC client of one connection, which is never dialled again.
func overConn(c net.Conn) (*grpc.ClientConn, error) {
	once := make(chan net.Conn, 1)
	once <- c
	return grpc.NewClient("passthrough:///"+filepath.Base(c.RemoteAddr().String()),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, net.ErrClosed
			}
		}),
		// A process that is stopped and not dead is noticed, and replaced.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(math.MaxInt32), grpc.MaxCallRecvMsgSize(16<<20)))
}

// configure sends what to decide by, at once and whenever it changes. When the
// first is in force the process gets connections.
func (a *Process) configure(ctx context.Context, client api.AuthzControlClient, over *handoverTo) error {
	var last *api.AuthzConfig
	for {
		s, stateChanged := a.state.Get()
		stamps, stampsChanged := a.stamps.Get()
		config := a.config(s, stamps)
		if s != nil {
			if config.RevokedGrants = over.revoke(s); len(config.RevokedGrants) > maxRevoked {
				return errBindingTaken // ending the process ends the connections, too
			}
		}
		if s != nil && !proto.Equal(config, last) {
			bounded, cancel := context.WithTimeout(ctx, configureTimeout)
			status, err := client.Configure(bounded, config)
			cancel()
			if err != nil {
				return fmt.Errorf("configure: %w", err)
			}
			last = config
			a.loaded.Set(status.GetLoaded())
			a.over.Set(over)
		}
		again := time.NewTimer(a.blame.wait(time.Now()))
		select {
		case <-stateChanged:
		case <-stampsChanged:
		case <-again.C: // what is stopped is tried again
		case <-ctx.Done():
			again.Stop()
			return nil
		}
		again.Stop()
	}
}

// config is everything that decisions are made by: the revisions that the server
// sends now, and those that a published view is stamped with.
func (a *Process) config(s *resources.Snapshot, stamps map[any][]string) *api.AuthzConfig {
	if s == nil {
		return nil
	}
	c := &api.AuthzConfig{Issuers: s.Issuers, TokenHashKey: a.hashKey}
	for id := range s.Bans {
		c.Bans = append(c.Bans, &api.Ban{SpiffeId: id})
	}
	slices.SortFunc(c.Bans, func(x, y *api.Ban) int { return cmp.Compare(x.GetSpiffeId(), y.GetSpiffeId()) })
	needed := map[string]bool{}
	for _, ids := range stamps {
		for _, id := range ids {
			needed[id] = true
		}
	}
	for _, p := range s.Policies {
		a.known[p.GetId()] = p
		needed[p.GetId()] = true
	}
	for id := range a.known {
		if !needed[id] {
			delete(a.known, id)
		}
	}
	if a.blame.forget(needed, time.Now()) {
		a.stopped.Set(a.blame.those(true))
	}
	c.Stopped, c.Suspect = evaluationMessages(a.blame.those(true)), evaluationMessages(a.blame.those(false))
	for _, p := range a.known {
		c.Revisions = append(c.Revisions, p)
	}
	slices.SortFunc(c.Revisions, func(x, y *api.PolicyRevision) int { return cmp.Compare(x.GetId(), y.GetId()) })
	// Those of now are the ones that must be there.
	c.Revisions = append(slices.DeleteFunc(c.Revisions, func(r *api.PolicyRevision) bool { return slices.Contains(s.Policies, r) }), s.Policies...)
	if i := slices.IndexFunc(c.Revisions, func(r *api.PolicyRevision) bool { return r.GetId() == s.Newest }); i >= 0 {
		newest := c.Revisions[i]
		c.Revisions = append(slices.Delete(c.Revisions, i, i+1), newest)
	}
	if n := len(c.Revisions); n > maxRevisions {
		c.Revisions = c.Revisions[n-maxRevisions:]
	}
	return c
}

// collect keeps the records of decisions.
func (a *Process) collect(ctx context.Context, client api.AuthzControlClient) error {
	stream, err := client.Decisions(ctx, &api.DecisionsRequest{})
	if err != nil {
		return fmt.Errorf("decisions: %w", err)
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("decisions: %w", err)
		}
		a.metrics.lost.Add(float64(batch.GetDropped()))
		for _, d := range batch.GetDecisions() {
			a.Record(d)
		}
		for _, k := range batch.GetWantedKeys() {
			a.settings.Wanted(k)
		}
	}
}

// give hands over a connection whose peer was attested to be the proxy of b. It is
// revoked before it is there, if it is: the process remembers what is revoked, and
// refuses what is still to come of it. So nothing is held while it is under way.
func (h *handoverTo) give(c *net.UnixConn, b identity.Binding, id spiffeid.ID, proxy string) error {
	number, err := h.grant(grantOf(b, id))
	if err != nil {
		return err
	}
	return pass(h.conn, c, handover{Destination: id.String(), Proxy: proxy, Grant: number})
}

// grant numbers what a connection is handed over for. The state may have moved on since
// its peer was attested, and configure may have looked for what is revoked already: so
// what is granted is looked at under the same lock.
func (h *handoverTo) grant(g grant) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.state.Load(); s == nil || !granted(s)[g] {
		return 0, resources.ErrNotBound
	}
	if h.granted[g] == 0 {
		h.last++
		h.granted[g] = h.last
	}
	return h.granted[g], nil
}

// revoke lists all that connections were handed over for and that is granted no longer.
// What is granted again has another number.
func (h *handoverTo) revoke(s *resources.Snapshot) []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := granted(s)
	for g, number := range h.granted {
		if !now[g] {
			h.revoked = append(h.revoked, number)
			delete(h.granted, g)
		}
	}
	slices.Sort(h.revoked)
	return slices.Clone(h.revoked)
}

// granted is every grant of a state.
func granted(s *resources.Snapshot) map[grant]bool {
	all := make(map[grant]bool, len(s.Bindings))
	for _, b := range s.Bindings {
		all[grantOf(b, s.IDs[b.Name])] = true
	}
	return all
}
