package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/underway"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuance"
	"signet.example/server/views"
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
	api.AgentAPI_Session_FullMethodName:                                            proveAgent,
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName: proveAgent,
}

// caller is who calls, as access found it. Only access makes one.
type caller struct {
	conn    net.Addr // of the connection's other end
	remote  netip.Addr
	hostKey []byte      // SHA-256 of the SPKI, for proveHostKey
	peer    *tlsPeer    // for proveHostKey
	id      spiffeid.ID // for proveAgent
	agent   store.Agent // for proveAgent
	// instance is which run of the agent it says that it is.
	instance string

	cancel context.CancelCauseFunc   // of a stream
	node   atomic.Pointer[proxy.Ref] // the virtual node that a stream was given
	logDir atomic.Pointer[string]    // for access logs, of an agent's own stream
}

// access decides who may call what. Its interceptors are the only way in.
type access struct {
	td     spiffeid.TrustDomain
	roots  func() issuance.Roots
	roster *fleet.Roster
	clock  func() time.Time
	log    *slog.Logger

	metrics   *metrics
	instances *fleet.Instances
	// turnedAway is told of what a caller was not given.
	turnedAway func(ctx context.Context, c *caller, action, why string)
	// verified is told of a connection on which this instance of an agent was let in, and
	// vouched of one on which a good token was shown.
	verified func(conn net.Addr, agent, instance string)
	vouched  func(conn net.Addr)
	// shut closes the connections of agents that are not to be served any more.
	shut func(standing func(agent string) bool)

	model func() *model

	mu     sync.Mutex           // guards the following
	open   map[*caller]struct{} // streams that are open
	closed bool
	// decided is by what the newest review was made: nothing else than that ends a stream
	// that was let in.
	decided decided
}

// decided is who the agents are, and who may host which virtual node.
type decided struct {
	roster uint64
	hosts  groups.Hosts
}

// asPeer is the caller as the agent that it is.
func (c *caller) asPeer() fleet.Peer {
	return fleet.Peer{ID: c.id, Agent: c.agent, Remote: c.remote, Instance: c.instance}
}

type callerKey struct{}

// callerOf returns who access let in.
func callerOf(ctx context.Context) (*caller, error) {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return nil, fault.Identity // a method that is not behind the interceptors
	}
	return c, nil
}

// identify checks the peer's certificate as the method's rule asks. The second
// value is when that proof ends.
func (a *access) identify(ctx context.Context, method string) (*caller, time.Time, error) {
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
	c := &caller{conn: p.Addr, remote: fleet.AddrOf(p.Addr)}
	var err error
	if c.instance, err = fleet.InstanceOf(ctx); err != nil {
		return c, time.Time{}, err
	}
	if rule == proveHostKey {
		c.peer = from
		return c, time.Time{}, c.proveHostKey(from.chain())
	}
	if err := a.proveAgent(c, from); err != nil {
		return c, time.Time{}, err
	}
	return c, from.chain()[0].NotAfter, nil
}

// enter is identify for a call that is to be served: of an agent, its one instance.
func (a *access) enter(ctx context.Context, method string) (*caller, time.Time, error) {
	c, until, err := a.identify(ctx, method)
	if err != nil || c.agent.ID == "" {
		return c, until, err
	}
	if err := a.instances.Admit(ctx, c.agent.ID, c.instance, c.remote); err != nil {
		return c, until, err // its connection is none of the agent's
	}
	a.verified(c.conn, c.agent.ID, c.instance)
	if conn := underway.Of(ctx); conn != nil {
		conn.Belongs("agent " + c.agent.ID)
	}
	if !a.stands(c.agent.ID) { // banned since it was identified: review may have come before
		a.shut(a.stands)
	}
	return c, until, nil
}

// knows reports whether the peer of a complete handshake is an agent that is to be
// served, by its host key or its SVID.
func (a *access) knows(p *tlsPeer) bool {
	if len(p.chain()) == 0 {
		return false
	}
	var c caller
	if c.proveHostKey(p.chain()) == nil {
		return a.roster.ServesKey(c.hostKey)
	}
	return a.proveAgent(&c, p) == nil
}

// proveHostKey accepts one certificate that its own key signed. Nothing in it is
// believed except the key, which the handshake proved the caller to have.
func (c *caller) proveHostKey(certs []*x509.Certificate) error {
	leaf := certs[0]
	if len(certs) != 1 || !hostKeyAllowed(leaf.PublicKey) {
		return fault.New(fault.Identity, "a host key certificate is one self-signed certificate of an ECDSA P-256, P-384 or Ed25519 key")
	}
	if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
		return fault.New(fault.Identity, "the host key certificate is not self-signed")
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	c.hostKey = sum[:]
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
func (a *access) proveAgent(c *caller, from *tlsPeer) error {
	id, err := a.verifySVID(from)
	if err != nil {
		return fault.New(fault.Identity, "client certificate: %v", err)
	}
	name, ok := identity.AgentID(id)
	if !ok {
		return fault.New(fault.Identity, "%s is not an agent", id)
	}
	agent, err := a.roster.Standing(name)
	if err != nil {
		return err
	}
	c.id, c.agent = id, agent
	return nil
}

// unary is the interceptor of calls.
func (a *access) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c, _, err := a.enter(ctx, info.FullMethod)
	if err != nil {
		a.refused(ctx, info.FullMethod, c, err)
		return nil, fault.ToAgent(err)
	}
	resp, err := next(context.WithValue(ctx, callerKey{}, c), req)
	if err == nil && c.agent.ID != "" { // banned meanwhile: what was made for it is not handed out
		_, err = a.roster.Standing(c.agent.ID)
	}
	if err != nil {
		a.failed(ctx, info.FullMethod, c, err)
	}
	return resp, fault.ToAgent(err)
}

// stream is the interceptor of streams. A stream ends with the certificate that
// opened it, or when end says so.
func (a *access) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, until, err := a.enter(ss.Context(), info.FullMethod)
	if err != nil {
		a.refused(ss.Context(), info.FullMethod, c, err)
		return fault.ToAgent(err)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	c.cancel = cancel
	expire := time.AfterFunc(until.Sub(a.clock()), func() {
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

func (a *access) keep(c *caller) {
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
func (a *access) standing(c *caller) (store.Agent, bool) {
	agent, err := a.roster.Standing(c.agent.ID)
	if err != nil {
		c.cancel(err)
	}
	return agent, err == nil
}

// close ends every stream, and those that still come: the server stops.
func (a *access) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for c := range a.open {
		c.cancel(errStopping)
	}
}

// logDirs are the folders that the operators of connected agents named for
// access logs.
func (a *access) logDirs() []string {
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

func (a *access) drop(c *caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
}

// follow reviews the streams if bindings or agents are others than the last time. One
// that comes meanwhile is looked at by keep, and when it is given its view.
func (a *access) follow(m *model) {
	now := decided{roster: a.roster.Version(), hosts: m.groups.Hosts} // the version before the agents: later ones have another
	a.mu.Lock()
	same := a.decided == now
	a.decided = now
	a.mu.Unlock()
	if !same {
		a.review(m.groups.Hosts.May)
	}
}

// stands reports whether an agent is to be served.
func (a *access) stands(agent string) bool {
	_, err := a.roster.Standing(agent)
	return err == nil
}

// review ends the streams whose standing is gone, and in a while their connections: the
// agent was banned, or the virtual node that a stream relays is no longer bound to its group (A30).
func (a *access) review(bound func(group string, node proxy.Ref) bool) {
	a.shut(a.stands)
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

// Review implements views.Access.
func (a *access) Review() { a.follow(a.model()) }

// Follower implements views.Access.
func (a *access) Follower(ctx context.Context) (views.Follower, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	return follower{c, a}, nil
}

// follower is the caller of a stream that follows a view (views.Follower).
type follower struct {
	caller *caller
	access *access
}

func (f follower) Agent() string     { return f.caller.agent.ID }
func (f follower) ID() spiffeid.ID   { return f.caller.id }
func (f follower) LogsTo(dir string) { f.caller.logDir.Store(&dir) }

// Follow notes the virtual node before the question whether the agent may host it: a
// binding that goes right after that, or another group of the agent, is then missed by
// nobody, since review looks at what a stream was given.
func (f follower) Follow(node proxy.Ref) error {
	f.caller.node.Store(&node)
	agent, err := f.access.roster.Standing(f.caller.agent.ID)
	if err != nil {
		return err
	}
	if !f.access.model().groups.Hosts.May(agent.Group, node) {
		return fault.Denied
	}
	return nil
}

// Evict ends the streams of an agent that other instances than this one have
// (fleet.Streams).
func (a *access) Evict(agent, instance string, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		if c.agent.ID == agent && c.instance != instance {
			c.cancel(why)
		}
	}
}

// audited are the methods whose refusals stand in the audit trail, by its word for them.
var audited = map[string]string{
	api.AgentAPI_Attest_FullMethodName: "attest",
	api.AgentAPI_Issue_FullMethodName:  "issue",
}

// audit writes down that a caller was turned away, not that something of ours failed.
func (a *access) audit(ctx context.Context, method string, c *caller, err error) {
	action, ok := audited[method]
	if !ok || c == nil {
		return
	}
	switch fault.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.ResourceExhausted, codes.FailedPrecondition:
		a.turnedAway(ctx, c, action, err.Error())
	default:
	}
}

// refused logs a caller that was not let in; never what it sent.
func (a *access) refused(ctx context.Context, method string, c *caller, err error) {
	a.metrics.refused.WithLabelValues(method).Inc()
	a.audit(ctx, method, c, err)
	attrs := []slog.Attr{slog.String("method", method), slog.Any("err", err)}
	if c != nil {
		attrs = append(attrs, slog.String("remote", c.remote.String()))
	}
	a.log.LogAttrs(ctx, slog.LevelWarn, "caller refused", attrs...)
}

// failed logs a call that went wrong, with the inside that the agent is not told.
func (a *access) failed(ctx context.Context, method string, c *caller, err error) {
	a.audit(ctx, method, c, err)
	a.log.LogAttrs(ctx, slog.LevelWarn, "call failed", slog.String("method", method),
		slog.String("agent", c.agent.ID), slog.String("remote", c.remote.String()), slog.Any("err", err))
}

// String names the caller in logs and audit rows.
func (c *caller) String() string {
	if c.agent.ID != "" {
		return "agent " + c.agent.ID
	}
	if len(c.hostKey) == 0 {
		return "caller at " + c.remote.String()
	}
	return fmt.Sprintf("host key %x at %s", c.hostKey[:min(4, len(c.hostKey))], c.remote)
}
