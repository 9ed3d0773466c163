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
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"signet.example/ads"
	"signet.example/agent/authzproc"
	"signet.example/agent/envoy"
	"signet.example/agent/limits"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/upstream"
	"signet.example/agent/wayout"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/sds"
)

// Run is the agent until ctx ends. It joins first, or comes back; from then on it
// goes on whatever happens to the servers.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	cfg, err := cfg.withUsers()
	if err != nil {
		return fmt.Errorf("agent: configuration: %w", err)
	}
	source, err := cfg.ways(os.Stdin)
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
	enrol, err := newEnrolment(cfg, own.data, m, log)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	first, err := enrol.enter(ctx, source)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	log.InfoContext(ctx, "joined", slog.String("spiffe_id", first.ID.String()), slog.String("server", cfg.Server))
	u, err := newLink(enrol, first, m, log)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer func() { _ = u.conn.Close() }()   // everything that uses it has ended
	a, err := assemble(cfg, u, own, m, log) //nolint:contextcheck // each stream brings its own
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("agent: %w", err)
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
	gate     *authzproc.Gate
	relay    *relay.Relay
	session  *upstream.Session

	wayOut *wayout.Server
	guests *limits.Guests
	// room is what local processes may have sent that nobody has read.
	room *underway.Room

	supervisor *envoy.Supervisor
	// given is what no proxy says of itself.
	given proxy.Shape

	xds, workload, calls *grpc.Server
}

func assemble(cfg Config, u *link, own *host, m *metrics, log *slog.Logger) (*agent, error) {
	children := &attestation.Children{}
	socks := own.sockets
	a := &agent{cfg: cfg, log: log, metrics: m, host: own, sockets: socks, link: u, guests: &limits.Guests{Within: limits.GuestTime}, room: limits.NewUnread()}
	a.guests.Named = func(uid uint32) bool {
		s := u.state.Load()
		return s != nil && s.NamesUser(uid)
	}
	a.attestor = &attestation.Attestor{
		Supervised: children.Supervised, RefuseLegacy: a.cfg.RefuseLegacyPeers,
		WantsHash: func(others identity.Selectors) bool {
			s := u.state.Load()
			return s != nil && s.WantsHash(others)
		},
	}
	process, err := authzproc.New(authzproc.Config{
		Executable: cmp.Or(cfg.Executable, child.Self), User: cfg.Authz.as, Spare: cfg.Authz.spare(), MemoryLimit: cfg.Authz.MemoryLimit,
		State: &u.state, Metrics: m.authz, Log: log,
	})
	if err != nil {
		return nil, err
	}
	a.authz = process
	a.given = proxy.Shape{AuthzSocket: socks.path("authz.sock"), WayoutSocket: socks.path("wayout.sock"), AccessLogDir: cfg.AccessLogDir}
	a.relay = relay.New(relay.Config{
		Conn: u.conn, Connected: &u.connected, State: &u.state, Trust: &u.enrol.trust, SVIDs: u.keeper, Policies: process,
		Given: a.given, Drain: cfg.DrainTime + time.Second, CheckApp: wayout.CheckApp, Stay: a.guests.Stay, Refused: m.refused.WithLabelValues("xds"), Log: log,
	})
	a.upstream = upstream.New(upstream.Config{
		Conn: u.conn, Cut: u.line.cut, Keeper: u.keeper, Standing: hostStanding{u.enrol}, State: &u.state, Connected: &u.connected,
		Own: a.relay.Own, LogDir: cfg.AccessLogDir, Up: m.upstream, Log: log,
	})
	a.gate = process.Gate(a.attestor, a.relay.NodeOf, a.guests.Knows, m.refused.WithLabelValues("authz"))
	changed := &watched.Value[int]{}
	change := func() { changed.Update(func(n int) int { return n + 1 }) }
	a.wayOut = wayout.New(wayout.Config{
		State: &u.state, Proxies: a.relay, DataDir: cfg.DataDir, Known: own.applications, Stay: a.guests.Stay, Changed: change, Metrics: m.wayOut, Log: log,
	})
	a.supervisor = envoy.New(envoy.Config{
		Program: cfg.Envoy, DrainTime: cfg.DrainTime, XDSSocket: socks.path("xds.sock"),
		Views: views{a.relay}, Children: children, Records: records{&u.state, process}, Check: checkProxy, Revoked: upstream.Banned,
		Changed: change, Metrics: m.envoys, Log: log,
	})
	r := &reporter{state: &u.state, keeper: u.keeper, relay: a.relay, authz: process, proxyStatus: a.supervisor.Status, version: cfg.Version, proxies: changed, speaker: a.wayOut.Speaker, peerMode: own.peerMode}
	if cfg.metricsOpen() {
		log.Warn("metrics have no authentication and are open to the network", slog.String("address", cfg.Metrics))
		r.fixed = append(r.fixed, finding(api.AgentFinding_METRICS_OPEN, "metrics have no authentication and are open to the network at %s", cfg.Metrics))
	}
	if !cfg.Authz.as.Other() && !cfg.Authz.spare() {
		r.fixed = append(r.fixed, finding(api.AgentFinding_AUTHZ_SAME_USER, "the authz process runs as the agent's own user"))
	}
	a.session = &upstream.Session{Conn: u.conn, Reporter: r, Decision: process.Decision, Log: log}
	a.serveADS()
	a.serveWorkloadAPI()
	a.serveWayOut()
	m.outageBudget(a.budget)
	return a, nil
}

// routedWait is how long a request may wait for a connection of the cluster that
// it was routed to: Envoy's time for a connection (xds), and one for a retry.
const routedWait = 2 * time.Second

func (a *agent) serveADS() {
	options := append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("xds")), ads.ServerOptions()...)
	a.xds = grpc.NewServer(append(options, grpc.ChainStreamInterceptor(limits.NewStreams(a.guests.Knows).Stream, a.relay.Guard))...)
	// A listener that changed goes on with its old routes while it drains.
	(&ads.Server{Views: a.relay, Peer: whoAsks, Log: a.log, Events: a.relay.Event, Drain: a.cfg.DrainTime + time.Second, Linger: routedWait}).Register(a.xds)
	a.metrics.streams("xds", a.relay.Open)
}

// whoAsks is whose a call is: a proxy of the agent's own, or a user.
func whoAsks(ctx context.Context) string {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return ""
	}
	if name, ok := p.Proxy(); ok {
		return "proxy " + name
	}
	return fmt.Sprintf("user %d", p.UID())
}

// turnedAway counts and logs connections to a socket that are closed without an answer,
// most before their first byte is read: their owner sees no more than that.
func (a *agent) turnedAway(socket string) func(unixsock.Peer, error) {
	return func(c unixsock.Peer, err error) {
		a.metrics.refused.WithLabelValues(socket).Inc()
		why := "its process cannot be attested"
		switch {
		case errors.Is(err, limits.ErrTooMany):
			why = "too many are open"
		case errors.Is(err, underway.ErrFull):
			why = underway.ErrFull.Error()
		}
		a.log.Warn(socket+".sock: connection closed: "+why, slog.Any("uid", c.UID), slog.Any("pid", c.PID),
			slog.Any("err", err), slog.String("hint", attestHint(err)))
	}
}

// attestHint reports what to do where the kernel does not show the agent a process.
func attestHint(err error) string {
	if errors.Is(err, os.ErrPermission) {
		return "the agent does not see other users' programs: give it CAP_SYS_PTRACE, or run it as root"
	}
	return ""
}

func (a *agent) serveWorkloadAPI() {
	open := limits.NewStreams(a.guests.Knows)
	header := func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		// For reflection too: the header guards the endpoint (Workload Endpoint 3).
		if err := sds.CheckHeader(stream.Context()); err != nil {
			return err
		}
		return open.Stream(srv, stream, info, next)
	}
	a.workload = grpc.NewServer(append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("workload")),
		grpc.MaxRecvMsgSize(64<<10), grpc.StreamInterceptor(header))...)
	sds.NewWorkloadAPI(&workloads{&a.link.state, &a.link.connected, &a.link.enrol.trust, a.link.keeper, a.guests, a.metrics, a.log}, attestedSelectors, a.log).Register(a.workload)
	reflection.Register(a.workload) // Workload Endpoint 7: SHOULD
	a.metrics.streams("workload", open.Count)
}

// serveWayOut serves who may call out, to proxies alone.
func (a *agent) serveWayOut() {
	a.calls = grpc.NewServer(append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("wayout")),
		grpc.MaxRecvMsgSize(64<<10), grpc.UnaryInterceptor(limits.NewStreams(a.guests.Knows).Unary))...)
	authv3.RegisterAuthorizationServer(a.calls, a.wayOut)
}

// run starts everything and stops it in the order of need: the proxies drain
// while identity, routing and decisions still stand behind them.
func (a *agent) run(ctx context.Context) error {
	ctx, shutOut := context.WithCancelCause(ctx)
	defer shutOut(nil)
	under, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, under := errgroup.WithContext(under)
	for _, standing := range []func(context.Context) error{a.upstream.Run, a.session.Run} {
		g.Go(func() error {
			err := standing(under)
			if upstream.Banned(err) { // as if told to stop: who calls our proxies is told now that they are gone
				shutOut(err)
				return nil
			}
			return err
		})
	}
	g.Go(func() error { return a.relay.Run(under) })
	g.Go(func() error { return a.authz.Run(under) })
	g.Go(func() error { return a.gate.Serve(under, a.sockets.authz) })
	g.Go(func() error { return limits.Serve(under, a.xds, a.sockets.xds) })
	g.Go(func() error { return limits.Serve(under, a.workload, a.sockets.workload) })
	g.Go(func() error { return limits.Serve(under, a.calls, a.sockets.wayout) })
	where := addresses{XDS: a.sockets.path("xds.sock"), Workload: a.sockets.path("workload.sock"), Authz: a.sockets.path("authz.sock")}
	if l := a.host.metrics; l != nil {
		where.Metrics = l.Addr().String()
		g.Go(func() error { return a.metrics.serveHTTP(under, l, a.health, a.log) })
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
	if err := where.write(a.cfg.SocketDir); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	defer func() { _ = os.Remove(filepath.Join(a.cfg.SocketDir, "addresses.json")) }() // best effort: its reader finds no process
	a.log.InfoContext(ctx, "agent ready", slog.String("socket_dir", a.cfg.SocketDir), slog.String("metrics", where.Metrics))
	if err := g.Wait(); err != nil {
		return err
	}
	if cause := context.Cause(ctx); upstream.Banned(cause) {
		return cause
	}
	return nil
}

// health is red where an identity is past its renewal by more than it should be,
// although nothing has ended yet.
func (a *agent) health() error {
	held := a.link.keeper.Held()
	now := time.Now()
	for _, s := range held {
		if svids.Reached(s.Issued.Add(s.Lifetime()/2), now) {
			return fmt.Errorf("%s was to be renewed at %s: %w", s.ID, s.Due.Format(time.RFC3339),
				cmp.Or(a.link.keeper.Failure(s.Entry), errNoServer))
		}
	}
	if a.link.state.Load() == nil {
		return resources.ErrNone
	}
	return nil
}

// budget is how long the SVID with the nearest end still is.
func (a *agent) budget() (time.Duration, bool) {
	held := a.link.keeper.Held()
	var least time.Duration
	found := false
	for _, s := range held {
		if left := time.Until(s.NotAfter()); !found || left < least {
			least, found = left, true
		}
	}
	return least, found
}

// sockets are the agent's.
type sockets struct {
	dir                          string
	xds, workload, authz, wayout *net.UnixListener
}

func (s *sockets) path(name string) string { return filepath.Join(s.dir, name) }

// all are the sockets by the names of their files.
func (s *sockets) all() map[string]**net.UnixListener {
	return map[string]**net.UnixListener{"xds.sock": &s.xds, "workload.sock": &s.workload, "authz.sock": &s.authz, "wayout.sock": &s.wayout}
}

// listen opens the sockets. Everyone on the host may connect: who they are is
// attested, and no file mode could tell a proxy from an application.
func listen(ctx context.Context, cfg Config) (*sockets, error) {
	s := &sockets{dir: cfg.SocketDir}
	// Others may pass through the folder and not list it.
	if err := os.MkdirAll(s.dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	// Whoever could put other sockets in the place of ours would be asked for
	// keys and decisions by every workload and proxy.
	if err := private.Folder(s.dir, uint32(os.Geteuid())); err != nil { //nolint:gosec // a uid has 32 bits
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	proxies := filepath.Join(s.dir, "proxies")
	if err := os.MkdirAll(proxies, 0o711); err != nil { //nolint:gosec // see above; each proxy has a folder of its own in it
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	// Whatever the umask says. This folder holds nothing but folders.
	if err := os.Chmod(proxies, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	for name, l := range s.all() {
		listener, err := unixsock.Listen(ctx, s.path(name), 0o666)
		if err != nil {
			s.close()
			return nil, err
		}
		*l = listener
	}
	return s, nil
}

func (s *sockets) close() {
	for _, l := range s.all() {
		if *l != nil {
			_ = (*l).Close() // closed already where it was served
		}
	}
}

// peerMode is how this kernel lets peers be attested.
func peerMode(refuseLegacy bool) (api.Report_PeerMode, error) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer mode")
	if err != nil {
		return 0, err
	}
	defer func() { _ = errors.Join(ours.Close(), theirs.Close()) }() // only looked at
	p, err := (&attestation.Attestor{RefuseLegacy: refuseLegacy}).Peer(ours)
	if errors.Is(err, attestation.ErrLegacy) {
		return 0, fmt.Errorf("refuse_legacy_peers: %w: run a kernel of 6.5 or later, or leave the key out", err)
	}
	if err != nil {
		return 0, fmt.Errorf("peers cannot be attested here: %w", err)
	}
	defer func() { _ = p.Close() }() // a pidfd
	if p.Mode() == attestation.ModeLegacy {
		return api.Report_LEGACY, nil
	}
	return api.Report_PIDFD, nil
}
