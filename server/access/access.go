package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/underway"
	"signet.example/proxy"
	"signet.example/server/conns"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuance"
	"signet.example/server/roster"
	"signet.example/store"
)

// proof is what a method needs to know of its caller.
type proof int

const (
	// proveHostKey: a self-signed certificate; the handshake proved its key.
	proveHostKey proof = iota + 1
	// proveAgent: an agent's SVID, of an agent that joined and is not banned.
	proveAgent
)

// rules is who may call what on the agents' listener. What is not in it is
// refused: a method that is added later is closed until someone decides.
var rules = map[string]proof{
	api.AgentAPI_Attest_FullMethodName:                                             proveHostKey,
	api.AgentAPI_Issue_FullMethodName:                                              proveAgent,
	api.AgentAPI_Leave_FullMethodName:                                              proveAgent,
	api.AgentAPI_Session_FullMethodName:                                            proveAgent,
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName: proveAgent,
}

// Methods are those of the rules.
func Methods() []string { return slices.Sorted(maps.Keys(rules)) }

// Caller is who calls, as Access found it. Only Access makes one.
type Caller struct {
	Conn    net.Addr // of the connection's other end
	Remote  netip.Addr
	HostKey []byte      // SHA-256 of the SPKI, of one that may join
	ID      spiffeid.ID // of an agent
	Agent   store.Agent // of an agent
	// Principal is by whose credentials it joined, where any number of agents can, "" of others.
	Principal string
	// Instance is which run of the agent it says that it is.
	Instance string

	peer   *tlsPeer                  // of one that may join
	cancel context.CancelCauseFunc   // of a stream
	node   atomic.Pointer[proxy.Ref] // the virtual node that a stream was given
	logDir atomic.Pointer[string]    // for access logs, of an agent's own stream
}

// TLS is the connection of one that may join.
func (c *Caller) TLS() tls.ConnectionState { return c.peer.State }

// Peer is the caller as the agent that it is.
func (c *Caller) Peer() fleet.Peer {
	return fleet.Peer{ID: c.ID, Agent: c.Agent, Principal: c.Principal, Remote: c.Remote, Instance: c.Instance}
}

// Config is what access is decided by. Every field is needed.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Roots       func() issuance.Roots
	Roster      *roster.Roster
	Hosts       func() groups.Hosts // which groups may host what, by what is stored now
	// Principal returns by whose credentials an agent joined that others can join by, too, ""
	// where it has evidence of its own.
	Principal func(method string, selectors []string) string
	Clock     func() time.Time
	Log       *slog.Logger
	Refused   *prometheus.CounterVec // callers that were not let in, by method
	// TurnedAway is told of what a caller was not given.
	TurnedAway func(ctx context.Context, c *Caller, action Action, why string)
}

// Instances are the runs of agents.
type Instances interface {
	// Admit lets a caller in as an instance of an agent, or refuses it while another one
	// is served or may be. It can take its time.
	Admit(ctx context.Context, agent, instance string, remote netip.Addr) error
}

// Connections are those of the agents' listener.
type Connections interface {
	// Verified is told of a connection on which an agent was let in.
	Verified(conn net.Addr, by conns.Caller)
	// Shut closes the connections of agents that are not to be served any more.
	Shut(standing func(agent string) bool)
}

// Access decides who may call what. Its interceptors are the only way in. Instances and
// Connections are set before the first call comes.
//
// mu is held while the roster is asked, and for looks and changes in memory.
type Access struct {
	Instances   Instances
	Connections Connections

	cfg    Config
	mu     sync.Mutex           // guards the following
	open   map[*Caller]struct{} // streams that are open
	closed bool
	// decided is by what the newest review was made: nothing else than that ends a stream
	// that was let in.
	decided decided
}

// New returns Access that has let nobody in.
func New(cfg Config) *Access { return &Access{cfg: cfg, open: map[*Caller]struct{}{}} }

// decided is who the agents are, and who may host which virtual node.
type decided struct {
	roster uint64
	hosts  groups.Hosts
}

type callerKey struct{}

// CallerOf returns who Access let in.
func CallerOf(ctx context.Context) (*Caller, error) {
	c, ok := ctx.Value(callerKey{}).(*Caller)
	if !ok {
		return nil, fault.Identity // a method that is not behind the interceptors
	}
	return c, nil
}

// identify checks the peer's certificate as the method's rule asks. The second
// value is when that proof ends.
func (a *Access) identify(ctx context.Context, method string) (*Caller, time.Time, error) {
	rule, ok := rules[method]
	if !ok {
		return nil, time.Time{}, fault.New(fault.Denied, "%s is not for agents", method)
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, time.Time{}, fault.Identity
	}
	from, ok := p.AuthInfo.(*tlsPeer)
	if !ok || len(from.chain()) == 0 {
		return nil, time.Time{}, fault.New(fault.Identity, "no client certificate")
	}
	c := &Caller{Conn: p.Addr, Remote: conns.AddrOf(p.Addr)}
	var err error
	if c.Instance, err = fleet.InstanceOf(ctx); err != nil {
		return c, time.Time{}, err
	}
	if rule == proveHostKey {
		c.peer = from
		return c, time.Time{}, c.proveHostKey(from.chain())
	}
	err = a.proveAgent(c, from)
	if errors.Is(err, fault.Identity) && a.cfg.Roster.Follow(ctx) == nil { // it may have joined at another server just now
		err = a.proveAgent(c, from)
	}
	if err != nil {
		return c, time.Time{}, err
	}
	return c, from.chain()[0].NotAfter, nil
}

// enter is identify for a call that is to be served: of an agent, its one instance.
func (a *Access) enter(ctx context.Context, method string) (*Caller, time.Time, error) {
	c, until, err := a.identify(ctx, method)
	if err != nil || c.Agent.ID == "" {
		return c, until, err
	}
	if err := a.Instances.Admit(ctx, c.Agent.ID, c.Instance, c.Remote); err != nil {
		return c, until, err // its connection is none of the agent's
	}
	a.Connections.Verified(c.Conn, conns.Caller{Agent: c.Agent.ID, Instance: c.Instance, Principal: c.Principal})
	if conn := underway.Of(ctx); conn != nil {
		conn.Belongs("agent "+c.Agent.ID, c.Principal)
	}
	if !a.stands(c.Agent.ID) { // banned since it was identified: review may have come before
		a.Connections.Shut(a.stands)
	}
	return c, until, nil
}

// knows reports whether the peer of a complete handshake is an agent that is to be
// served, by its host key or its SVID, and returns its principal.
func (a *Access) knows(p *tlsPeer) (principal string, ok bool) {
	if len(p.chain()) == 0 {
		return "", false
	}
	var c Caller
	if c.proveHostKey(p.chain()) == nil {
		agent, ok := a.cfg.Roster.ServesKey(c.HostKey)
		if !ok {
			return "", false
		}
		return a.cfg.Principal(agent.Method, agent.Selectors), true
	}
	err := a.proveAgent(&c, p)
	return c.Principal, err == nil
}

// proveHostKey accepts one certificate that its own key signed. Nothing in it is
// believed except the key, which the handshake proved the caller to have.
func (c *Caller) proveHostKey(certs []*x509.Certificate) error {
	leaf := certs[0]
	if len(certs) != 1 || !hostKeyAllowed(leaf.PublicKey) {
		return fault.New(fault.Identity, "a host key certificate is one self-signed certificate of an ECDSA P-256, P-384 or Ed25519 key")
	}
	if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
		return fault.New(fault.Identity, "the host key certificate is not self-signed")
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	c.HostKey = sum[:]
	return nil
}

func hostKeyAllowed(key any) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// proveAgent accepts a chain to our roots whose leaf is the SVID of an agent that
// joined and is not banned. A workload's SVID is refused: it names no agent (A12).
func (a *Access) proveAgent(c *Caller, from *tlsPeer) error {
	id, err := a.verifySVID(from)
	if err != nil {
		return fault.New(fault.Identity, "client certificate: %v", err)
	}
	name, ok := identity.AgentID(id)
	if !ok {
		return fault.New(fault.Identity, "%s is not an agent", id)
	}
	agent, err := a.cfg.Roster.Standing(name)
	if err != nil {
		return err
	}
	c.ID, c.Agent, c.Principal = id, agent, a.cfg.Principal(agent.Method, agent.Selectors)
	return nil
}

// Tap refuses who shows no SVID before any of its message is kept or decoded, where an
// agent is asked for. The interceptors ask for more, after the message. It must not wait.
func (a *Access) Tap(ctx context.Context, call *tap.Info) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if rules[call.FullMethodName] != proveAgent || !ok {
		return ctx, nil
	}
	from, ok := p.AuthInfo.(*tlsPeer)
	if !ok || len(from.chain()) == 0 {
		return ctx, nil
	}
	if _, err := a.verifySVID(from); err != nil {
		err = fault.New(fault.Identity, "client certificate: %v", err)
		a.refused(ctx, call.FullMethodName, &Caller{Conn: p.Addr, Remote: conns.AddrOf(p.Addr)}, err)
		return ctx, fault.ToAgent(err)
	}
	return ctx, nil
}

// Unary is the interceptor of calls.
func (a *Access) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c, _, err := a.enter(ctx, info.FullMethod)
	if err != nil {
		a.refused(ctx, info.FullMethod, c, err)
		return nil, fault.ToAgent(err)
	}
	resp, err := next(context.WithValue(ctx, callerKey{}, c), req)
	if err == nil && c.Agent.ID != "" { // banned meanwhile: what was made for it is not handed out
		_, err = a.cfg.Roster.Standing(c.Agent.ID)
	}
	if err != nil {
		a.failed(ctx, info.FullMethod, c, err)
	}
	return resp, fault.ToAgent(err)
}

// Stream is the interceptor of streams. A stream ends with the certificate that
// opened it, and where its agent is banned or forgotten.
func (a *Access) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, until, err := a.enter(ss.Context(), info.FullMethod)
	if err != nil {
		a.refused(ss.Context(), info.FullMethod, c, err)
		return fault.ToAgent(err)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	c.cancel = cancel
	expire := time.AfterFunc(until.Sub(a.cfg.Clock()), func() {
		cancel(fault.New(fault.Identity, "the certificate that opened this stream has expired"))
	})
	defer expire.Stop()
	a.keep(c)
	defer a.drop(c)
	err = next(srv, &ownedStream{ServerStream: ss, ctx: context.WithValue(ctx, callerKey{}, c)})
	if cause := context.Cause(ctx); cause != nil && ss.Context().Err() == nil {
		err = cause // we ended it: tell why
	}
	return fault.ToAgent(err)
}

// ownedStream is a stream under a context that access can end.
type ownedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream's own contract
}

func (s *ownedStream) Context() context.Context { return s.ctx }

// RecvMsg ends with the context: the transport's own knows nothing of a ban. The
// goroutine that still waits in the transport ends when the handler returns.
func (s *ownedStream) RecvMsg(m any) error {
	if s.ctx.Err() != nil {
		return fault.ToAgent(context.Cause(s.ctx))
	}
	return s.ServerStream.RecvMsg(m)
}

var errStopping = fault.New(fault.Unavailable, "the server is stopping")

func (a *Access) keep(c *Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[c] = struct{}{}
	if a.closed {
		c.cancel(errStopping)
	}
	// Again: between identify and here it may have been banned and reviewed.
	a.standing(c)
}

// standing ends the stream of an agent that must no longer be served. Callers
// hold the lock.
func (a *Access) standing(c *Caller) (store.Agent, bool) {
	agent, err := a.cfg.Roster.Standing(c.Agent.ID)
	if err != nil {
		c.cancel(err)
	}
	return agent, err == nil
}

// Close ends every stream, and those that still come: the server stops.
func (a *Access) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for c := range a.open {
		c.cancel(errStopping)
	}
}

// LogDirs are the folders that the operators of connected agents named for
// access logs.
func (a *Access) LogDirs() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var dirs []string
	for c := range a.open {
		if dir := c.logDir.Load(); dir != nil && *dir != "" {
			dirs = append(dirs, *dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (a *Access) drop(c *Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
}

// Review reviews the streams if bindings or agents are others than the last time. One
// that comes meanwhile is looked at by keep, and when it is given its view.
func (a *Access) Review() {
	now := decided{roster: a.cfg.Roster.Version(), hosts: a.cfg.Hosts()} // the version before the agents: later ones have another
	a.mu.Lock()
	same := a.decided == now
	a.decided = now
	a.mu.Unlock()
	if !same {
		a.review(now.hosts.May)
	}
}

// stands reports whether an agent is to be served.
func (a *Access) stands(agent string) bool {
	_, err := a.cfg.Roster.Standing(agent)
	return err == nil
}

// review ends the streams whose standing is gone, and in a while their connections: the
// agent was banned, or the virtual node that a stream relays is no longer bound to its group (A30).
func (a *Access) review(bound func(group string, node proxy.Ref) bool) {
	a.Connections.Shut(a.stands)
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		agent, ok := a.standing(c)
		if !ok {
			continue
		}
		if n := c.node.Load(); n != nil && !bound(agent.Group, *n) {
			c.cancel(fault.Denied)
		}
	}
}

// Follower is the agent of a stream that follows views.
func (a *Access) Follower(ctx context.Context) (Follower, error) {
	c, err := CallerOf(ctx)
	return Follower{c, a}, err
}

// Follower is the agent of a stream that follows a view.
type Follower struct {
	caller *Caller
	access *Access
}

// Agent is its id.
func (f Follower) Agent() string { return f.caller.Agent.ID }

// ID is its identity.
func (f Follower) ID() spiffeid.ID { return f.caller.ID }

// LogsTo notes the folder that the agent's operator named for access logs.
func (f Follower) LogsTo(dir string) { f.caller.logDir.Store(&dir) }

// Follow notes the virtual node before the question whether the agent may host it: a
// binding that goes right after that, or another group of the agent, is then missed by
// nobody, since review looks at what a stream was given.
func (f Follower) Follow(node proxy.Ref) error {
	f.caller.node.Store(&node)
	agent, err := f.access.cfg.Roster.Standing(f.caller.Agent.ID)
	if err != nil {
		return err
	}
	if !f.access.cfg.Hosts().May(agent.Group, node) {
		return fault.Denied
	}
	return nil
}

// Evict ends the streams of an agent that other instances than this one have
// (fleet.Streams).
func (a *Access) Evict(agent, instance string, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		if c.Agent.ID == agent && c.Instance != instance {
			c.cancel(why)
		}
	}
}

// audit writes down that a caller was turned away, not that something of ours failed.
func (a *Access) audit(ctx context.Context, method string, c *Caller, err error) {
	action, ok := audited[method]
	if !ok || c == nil {
		return
	}
	switch fault.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.ResourceExhausted, codes.FailedPrecondition:
		a.cfg.TurnedAway(ctx, c, action, err.Error())
	default:
	}
}

// refused logs a caller that was not let in; never what it sent.
func (a *Access) refused(ctx context.Context, method string, c *Caller, err error) {
	a.cfg.Refused.WithLabelValues(method).Inc()
	a.audit(ctx, method, c, err)
	attrs := []slog.Attr{slog.String("method", method), slog.Any("err", err)}
	if c != nil {
		attrs = append(attrs, slog.String("remote", c.Remote.String()))
	}
	a.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "caller refused", attrs...)
}

// failed logs a call that went wrong, with the inside that the agent is not told.
func (a *Access) failed(ctx context.Context, method string, c *Caller, err error) {
	a.audit(ctx, method, c, err)
	a.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "call failed", slog.String("method", method),
		slog.String("agent", c.Agent.ID), slog.String("remote", c.Remote.String()), slog.Any("err", err))
}

// String names the caller in logs and audit rows.
func (c *Caller) String() string {
	if c.Agent.ID != "" {
		return "agent " + c.Agent.ID
	}
	if len(c.HostKey) == 0 {
		return "caller at " + c.Remote.String()
	}
	return fmt.Sprintf("host key %x at %s", c.HostKey[:min(4, len(c.HostKey))], c.Remote)
}
