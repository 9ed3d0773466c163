package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"signet.example/agent/answered"
	"signet.example/agent/authzproc"
	"signet.example/agent/dns"
	"signet.example/agent/envoy"
	"signet.example/agent/files"
	"signet.example/agent/join"
	"signet.example/agent/limits"
	"signet.example/agent/local"
	"signet.example/agent/operator"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/upstream"
	"signet.example/agent/wayout"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/overload"
	"signet.example/internal/scrape"
	"signet.example/internal/underway"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// Run is the agent until ctx ends. It joins first, or comes back; from then on it
// goes on whatever happens to the servers.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	if err := cfg.ours(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	cfg, err := cfg.withUsers()
	if err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	cfg, err = cfg.withPlatform(ctx)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if t := cfg.platform; t.Known() {
		log.InfoContext(ctx, "task of ECS", slog.String("task", t.String()), slog.String("arn", t.ARN), slog.String("container", t.Container))
	}
	source, err := cfg.ways().Take(os.Stdin)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := child.KeepSecret(); err != nil { // this process holds the keys
		return fmt.Errorf("agent: %w", err)
	}
	own, err := openHost(ctx, cfg)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer own.close()
	m := newMetrics()
	enrol, err := join.New(join.Config{Server: cfg.Server, TrustDomain: cfg.TrustDomain, Attested: m.attestations, Log: log}, own.data)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	first, err := enrol.Enter(ctx, source)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	log.InfoContext(ctx, "joined", slog.String("spiffe_id", first.ID.String()), slog.String("server", cfg.Server))
	u, err := newLink(enrol, first, m.svids, log)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer func() { _ = u.line.Close() }() // everything that uses it has ended
	a, err := assemble(cfg, u, own, m, log)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if cfg.Join.Ends() {
		a.session.Leave(context.WithoutCancel(ctx))
	}
	return nil
}

// agent is the assembled whole.
type agent struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	host     *host
	sockets  *sockets
	attestor *attestation.Attestor

	link     *link
	upstream *upstream.Upstream
	authz    *authzproc.Process
	answered *answered.Day
	gate     *authzproc.Gate
	relay    *relay.Relay
	session  *upstream.Session
	files    *files.Folders

	wayOut *wayout.Server
	guests *limits.Guests
	// door is what whoever comes to a socket passes first.
	door *limits.Door
	// room is what local processes may have sent that nobody has read.
	room *underway.Room

	order      envoy.StopOrder // in which a task is stopped
	supervisor *envoy.Supervisor
	// given is what no proxy says of itself.
	given proxy.Shape

	xds, workload, calls *grpc.Server
}

func assemble(cfg Config, u *link, own *host, m *metrics, log *slog.Logger) (*agent, error) {
	children := &attestation.Children{}
	socks := own.sockets
	a := &agent{cfg: cfg, log: log, metrics: m, host: own, sockets: socks, link: u, answered: answered.New(answered.Bytes), guests: &limits.Guests{Within: limits.GuestTime}, room: limits.NewUnread()}
	a.guests.Named = func(uid uint32) bool {
		s := u.state.Load()
		return s != nil && s.NamesUser(uid)
	}
	a.attestor = &attestation.Attestor{
		Supervised: children.Supervised, Started: children.Has, Task: cfg.Mode.task(), Platform: cfg.platform.Selectors(), RefuseLegacy: a.cfg.RefuseLegacyPeers,
		WantsHash: func(others identity.Selectors) bool {
			s := u.state.Load()
			return s != nil && s.WantsHash(others)
		},
	}
	a.door = limits.NewDoor(a.guests.Knows, func(pid int32) bool { return children.Has(int(pid)) })
	wanted := make(upstream.Wanted, 16)
	process, err := authzproc.New(authzproc.Config{
		Executable: cmp.Or(cfg.Executable, child.Self), User: cfg.Authz.as, Spare: cfg.Authz.spare(), MemoryLimit: cfg.Authz.MemoryLimit,
		State: &u.state, Wanted: wanted.Add, Answered: a.answered, Metrics: m.authz, Log: log,
	})
	if err != nil {
		return nil, err
	}
	a.authz = process
	a.given = proxy.Shape{AuthzSocket: socks.path(authzSocket), WayoutSocket: socks.path(wayoutSocket), AccessLogDir: cfg.AccessLogDir, Answers: true, Underscores: true, Connections: envoy.Connections()}
	a.relay = relay.New(relay.Config{
		Conn: u.line.Conn(), Connected: &u.connected, State: &u.state, Trust: u.enrol.Trusted(), SVIDs: u.keeper, Policies: process,
		Given: a.given, AppMesh: cfg.AppMesh, Drain: cfg.DrainTime + time.Second, CheckApp: wayout.CheckApp, Stay: a.guests.Stay, Refused: m.refused.WithLabelValues("xds"), Log: log,
	})
	a.relay.AllowFiles(filesOf(cfg.Proxies))
	a.upstream = upstream.New(upstream.Config{
		Conn: u.line.Conn(), Cut: u.line.Cut, Keeper: u.keeper, Standing: u.enrol, State: &u.state, Connected: &u.connected,
		Own: a.relay.Own, Check: cfg.Mode.check(), LogDir: cfg.AccessLogDir, Up: m.upstream, Log: log,
	})
	a.gate = process.Gate(a.attestor, a.relay.NodeOf, a.guests, m.refused.WithLabelValues("authz"))
	changed := &watched.Value[int]{}
	change := func() { changed.Update(func(n int) int { return n + 1 }) }
	a.wayOut = wayout.New(wayout.Config{
		State: &u.state, Proxies: a.relay, DataDir: cfg.DataDir, Known: own.applications, Task: cfg.Mode.task(), Stay: a.guests.Stay, Changed: change, Metrics: m.wayOut, Log: log,
	})
	a.supervisor = envoy.New(envoy.Config{
		Program: cfg.Envoy, DrainTime: cfg.DrainTime, DrainRequests: cfg.DrainRequests,
		Heap: cfg.Mode.heap(), Outlive: cfg.outlive(), Early: a.order.Early, Applications: a.listens, AccessLogs: cfg.Mode.accessLogs(), XDSSocket: socks.path(xdsSocket),
		Views: views{a.relay}, Children: children, Records: process, Callers: &u.callers, Check: checkProxy, Revoked: api.Banned,
		Read: a.read, Changed: change, Metrics: m.envoys, Log: log,
	})
	a.files = files.New(files.Parts{
		Root: own.files, Owners: cfg.owners, Commands: cfg.Files.Commands, Task: cfg.Mode.task(),
		State: &u.state, SVIDs: u.keeper, Trust: u.enrol.Trusted(), Changed: change, Metrics: m.files, Log: log,
	})
	r := &reporter{files: a.files, state: &u.state, keeper: u.keeper, relay: a.relay, authz: process, proxyStatus: a.supervisor.Status, version: cfg.Version, proxies: changed, speaker: a.wayOut.Speaker, begun: time.Now(), peerMode: own.peerMode, task: cfg.platform.String()}
	if scrape.Open(cfg.Metrics) {
		log.Warn("metrics have no authentication and are open to the network", slog.String("address", cfg.Metrics))
		r.fixed = append(r.fixed, finding(api.AgentFinding_METRICS_OPEN, "metrics have no authentication and are open to the network at %s", cfg.Metrics))
	}
	if !cfg.Authz.as.Other() && !cfg.Authz.spare() {
		r.fixed = append(r.fixed, finding(api.AgentFinding_AUTHZ_SAME_USER, "the authz process runs as the agent's own user"))
	}
	a.session = &upstream.Session{Conn: u.line.Conn(), Reporter: r, Decision: process.Decision, Decisions: process.Decisions, Wanted: wanted, Callers: &u.callers, Log: log}
	a.serveADS()
	a.serveWorkloadAPI()
	a.serveWayOut()
	m.outageBudget(u.keeper.Budget)
	m.tlsFiles(a.relay.FileProblems)
	return a, nil
}

// run starts everything and stops it in the order of need: the proxies drain
// while identity, routing and decisions still stand behind them.
func (a *agent) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, a.order.End)()
	ctx, shutOut := context.WithCancelCause(ctx)
	defer shutOut(nil)
	under, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, under := errgroup.WithContext(under)
	for _, standing := range []func(context.Context) error{a.upstream.Run, a.session.Run} {
		g.Go(func() error {
			err := standing(under)
			if api.Banned(err) { // as if told to stop: who calls our proxies is told now that they are gone
				shutOut(err)
				return nil
			}
			return err
		})
	}
	g.Go(func() error { return overload.New(limits.Memory(), a.room, a.log).Run(under) })
	g.Go(func() error { return a.relay.Run(under) })
	g.Go(func() error { return a.files.Run(under) })
	g.Go(func() error { return a.authz.Run(under) })
	g.Go(func() error { return a.answered.Keep(under, a.cfg.DataDir, a.log) })
	for name, serve := range map[string]func(net.Listener) error{
		xdsSocket:      func(l net.Listener) error { return limits.Serve(under, a.xds, l, a.room) },
		workloadSocket: func(l net.Listener) error { return limits.Serve(under, a.workload, l, a.room) },
		authzSocket:    func(l net.Listener) error { return a.gate.Serve(under, l) },
		wayoutSocket:   func(l net.Listener) error { return limits.Serve(under, a.calls, l, a.room) },
	} {
		l := *a.sockets.all()[name]
		g.Go(func() error {
			behind, err := a.door.At(l, a.keptOut(strings.TrimSuffix(name, ".sock")))
			if err != nil {
				return err
			}
			return serve(behind)
		})
	}
	where := local.Addresses{Mode: string(a.cfg.Mode), XDS: a.sockets.path(xdsSocket), Workload: a.sockets.path(workloadSocket), Authz: a.sockets.path(authzSocket)}
	if l := a.host.metrics; l != nil {
		where.Metrics = l.Addr().String()
		g.Go(func() error { return a.metrics.serveHTTP(under, l, a.health, a.ready, a.log) })
	}
	if names := a.host.names; names != nil {
		server, _, _ := net.SplitHostPort(a.cfg.Server)
		find := slices.ContainsFunc(a.cfg.Proxies, func(p Proxy) bool { return p.ServiceAddresses })
		known := dns.Keep(a.cfg.DataDir, []string{server, a.cfg.Join.AWSTask.Asks()}, find, a.relay, a.log)
		g.Go(func() error { known.Run(under); return nil })
		g.Go(func() error { names.Run(under, known.Address, a.log); return nil })
	}
	g.Go(func() error { return a.explainer().Serve(under, a.host.operators.Process) })
	if l := a.host.operators.Stop; l != nil {
		stop := operator.Stop{Order: &a.order, Outlive: a.cfg.outlive(), Proxies: a.supervisor.Status, Log: a.log}
		g.Go(func() error { return stop.Serve(under, l, shutOut) })
	}
	first := proxiesOf(a.cfg.Proxies, a.given) // before a reload changes them
	g.Go(func() error {
		defer stop()
		// The proxies end with the caller's context, or when something below fails.
		proxies, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(under, cancel)()
		a.supervisor.Run(proxies, first)
		return nil
	})
	if a.cfg.Reload != nil {
		g.Go(func() error {
			a.cfg.Reload(under, func(next Config) error { return a.reload(under, next) })
			return nil
		})
	}
	if err := where.Write(a.cfg.SocketDir); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	defer func() { _ = os.Remove(filepath.Join(a.cfg.SocketDir, local.AddressesFile)) }() // best effort: its reader finds no process
	a.log.InfoContext(ctx, "agent ready", slog.String("socket_dir", a.cfg.SocketDir), slog.String("metrics", where.Metrics))
	if err := g.Wait(); err != nil {
		return err
	}
	if cause := context.Cause(ctx); api.Banned(cause) {
		return errors.Join(cause, a.files.End())
	}
	return nil
}

// health is red where an identity is past its renewal by more than it should be,
// although nothing has ended yet.
func (a *agent) health() error {
	if err := svids.Overdue(a.link.keeper.Held(), time.Now()); err != nil {
		return err
	}
	if a.link.state.Load() == nil {
		return resources.ErrNone
	}
	return nil
}

// ready is nil when each proxy of the configuration serves, with its identity.
func (a *agent) ready() error {
	if err := a.health(); err != nil {
		return err
	}
	waiting, all := 0, a.supervisor.Status()
	for _, s := range all {
		if s.State != api.ProxyStatus_READY {
			waiting++
		}
	}
	if waiting > 0 || len(all) == 0 && len(a.cfg.Proxies) > 0 {
		return fmt.Errorf("%d of %d proxies are not ready: the agent's log and `signet proxies` say why", waiting, len(a.cfg.Proxies))
	}
	return nil
}
