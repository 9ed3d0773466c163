package wayout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// Proxies is what the proxies of this host are. It is asked for each connection, by
// several goroutines at once.
type Proxies interface {
	// NodeOf returns what a process is given on its streams, the zero Ref where that is
	// nothing or several: its node id selects among what it is bound to.
	NodeOf(p *attestation.Peer) proxy.Ref
	// ShapeOf returns the shape of the proxy that a process is, bound as that. For one that
	// the agent did not start it is what its stream was given: without a stream it has
	// no shape, and nobody may speak through it.
	ShapeOf(pid int, has identity.Selectors, as svids.Name) (proxy.Shape, error)
	// PortsOf returns the ports of the inbound listeners of what the proxies of one shape
	// and binding were sent, in order. Without a configuration it is an error.
	PortsOf(ref proxy.Ref, sh proxy.Shape, as svids.Name) ([]uint32, error)
}

// Config is what a server is made of. Every field except Task is needed.
type Config struct {
	// State is what the servers told the agent for itself; nil before the first.
	State   *watched.Value[*resources.Snapshot]
	Proxies Proxies
	// DataDir holds the file of applications, Known is what was in it at the start.
	DataDir string
	Known   Known
	// Stay is told of a peer that may ask.
	Stay func(*attestation.Peer)
	// Task is set where the network namespace is one task's: who calls there is in the task.
	Task bool
	// Changed is told when a report may have become another one.
	Changed func()
	Metrics *Metrics
	Log     *slog.Logger
}

// Server is Envoy's network ext_authz. It is part of the process with the keys.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	config Config
	owners *owners
}

// New returns one that answers at once.
func New(c Config) *Server {
	return &Server{config: c, owners: newOwners(newMemory(fileIn(c.DataDir), c.Known, c.Log), c.Log, c.Changed)}
}

// Check implements Envoy's network ext_authz. Whatever goes wrong denies.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	caller, err := s.decide(ctx, req.GetAttributes())
	s.config.Metrics.seconds.Observe(time.Since(start).Seconds())
	if err == nil {
		s.config.Metrics.connections.WithLabelValues(reasonAllowed).Inc()
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}}, nil
	}
	if gaveUp := ctx.Err(); gaveUp != nil { // and with that it closed the connection, so that what was found means nothing
		err = no(reasonLate, "the proxy gave the question up after %s: %w (%w)", time.Since(start).Round(time.Millisecond), gaveUp, err)
	}
	reason := reasonError
	if no, ok := errors.AsType[*notAllowed](err); ok {
		reason = no.reason
	}
	s.config.Metrics.connections.WithLabelValues(reason).Inc()
	s.config.Log.WarnContext(ctx, "way out: connection refused", slog.String("reason", reason), slog.String("caller", caller), slog.Any("err", err))
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}}, nil
}

// asker is the proxy that asks.
type asker struct {
	peer    *attestation.Peer
	has     identity.Selectors
	here    bool // in the agent's network namespace
	binding identity.Binding
	as      svids.Name
}

// node is what the proxy runs for, as a node id.
func (a asker) node() proxy.Ref { return resources.RefOf(a.binding) }

// asks finds out who asks.
func (s *Server) asks(ctx context.Context) (asker, error) {
	peer, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return asker{}, no(reasonProxy, "the connection was not attested")
	}
	has, here, err := peer.Look(ctx)
	if err != nil {
		return asker{}, no(reasonProxy, "who asks: %w", err)
	}
	state := s.config.State.Load()
	if state == nil {
		return asker{}, no(reasonNotReady, "%w", resources.ErrNone)
	}
	// The question has no node id: where bindings for several nodes fit the process, it is
	// the one that it is on xds.sock.
	b, id, err := state.Binding(has, s.config.Proxies.NodeOf(peer))
	if err != nil {
		return asker{}, no(reasonProxy, "pid %d: %w", peer.PID(), err)
	}
	s.config.Stay(peer)
	return asker{peer, has, here, b, svids.Name{Entry: b.Name, ID: id}}, nil
}

// decide returns nil if the connection may go out. caller is for the log.
func (s *Server) decide(ctx context.Context, at *authv3.AttributeContext) (caller string, err error) {
	from, to := socketAddress(at.GetSource()), socketAddress(at.GetDestination())
	caller = from.String()
	if err := ctx.Err(); err != nil {
		return caller, err // nobody waits for it any more
	}
	a, err := s.asks(ctx)
	if err != nil {
		return caller, err
	}
	if a.node().Gateway() {
		return caller, no(reasonProxy, "%s: nobody calls out through a gateway", a.node())
	}
	sh, unshaped := s.config.Proxies.ShapeOf(a.peer.PID(), a.has, a.as)
	if unshaped == nil {
		// Again: the folder was looked at when the proxy started, and may have changed.
		if err := CheckApp(sh); err != nil {
			return caller, no(reasonSocket, "%s: %w", a.node(), err)
		}
	}
	if socket := at.GetDestination().GetAddress().GetPipe().GetPath(); socket != "" {
		return socket, a.atSocket(socket, sh, unshaped)
	}
	if !from.IsValid() || !to.IsValid() {
		return caller, no(reasonListenAddr, "%s: a connection without two IP addresses", a.node())
	}
	switch b := a.binding; {
	case b.Applications.Anyone, b.Applications.Namespace && (s.config.Task || !a.here):
		return caller, nil
	case !a.here:
		return caller, no(reasonNamespace, "%s: the proxy is in another network namespace than the agent, which does not see who calls there: let the namespace as a whole call out by `applications: [namespace]` in Binding %s", a.node(), b.Name)
	}
	holders, err := holdersOf(from, to, sh.Capture)
	switch {
	case errors.Is(err, attestation.ErrNoOwner):
		return caller, no(reasonGone, "%s: %w", a.node(), err)
	case err != nil: // nothing was found out
		return caller, fmt.Errorf("%s: %w", a.node(), err)
	}
	for _, holder := range holders {
		caller = owner{UID: holder.UID}.String()
		err := s.allows(a, sh, unshaped, holder)
		if err != nil && len(holders) > 1 {
			err = fmt.Errorf("%s calls %s at the same time as others, and the kernel gave this connection another source port, as where two redirected connections have one, so that it can be any of theirs (leave the destination out of what is redirected, or let one user call it): %w", caller, to, err)
		}
		if err != nil {
			return caller, err
		}
	}
	return caller, nil
}

// allows returns nil if whoever holds a connection may call out.
func (s *Server) allows(a asker, sh proxy.Shape, unshaped error, holder attestation.SocketOwner) error {
	if b := a.binding; !b.Applications.IsZero() {
		if !b.Applications.Allows(holder.UID) {
			return no(reasonNotTheirs, "%s: %s is not among the applications of Binding %s (%v)", a.node(), owner{UID: holder.UID}, b.Name, b.Applications.Strings())
		}
		return nil
	}
	if unshaped != nil {
		return no(reasonNotReady, "%s: %w", a.node(), unshaped)
	}
	f, err := s.front(a.node(), sh, a.as)
	if err != nil {
		return no(reasonNotReady, "%s: %w", a.node(), err)
	}
	return s.owners.allows(f, a.binding.Name, holder)
}

// holdersOf are who can have made a connection: one, except where they are redirected.
func holdersOf(from, to netip.AddrPort, c proxy.Capture) ([]attestation.SocketOwner, error) {
	if at := c.LedTo(to.Addr()); at.IsValid() {
		return attestation.RedirectedOwners(from, to, at)
	}
	one, err := attestation.ConnectionOwner(from, to)
	return []attestation.SocketOwner{one}, err
}

// Listens reports whether the application behind a proxy is there. Where that cannot be
// found out it may be.
func (s *Server) Listens(ref proxy.Ref, sh proxy.Shape, as svids.Name) bool {
	f, err := s.front(ref, sh, as)
	if err != nil {
		return false // the proxy has no configuration: nothing is sent there
	}
	l, err := s.owners.listening(f)
	return l.any || err != nil
}

// front is what stands behind a proxy.
func (s *Server) front(ref proxy.Ref, sh proxy.Shape, as svids.Name) (front, error) {
	ports, err := s.config.Proxies.PortsOf(ref, sh, as)
	if err != nil {
		return front{}, err
	}
	return frontOf(ref, sh, ports)
}

// atSocket decides about a connection to an outbound listener that is a Unix
// socket. Envoy does not say who connected there (the peer of a Unix socket has no
// name), and the kernel does not say whose connection it asks about: whoever can
// open the socket may call out, so that its folder, owner and mode must be as
// they were asked for.
func (a asker) atSocket(socket string, sh proxy.Shape, unshaped error) error {
	if a.binding.Applications.Anyone {
		return nil
	}
	if !a.binding.Applications.IsZero() {
		return no(reasonSocket, "%s: %s", a.node(), socketNamesNobody(a.binding))
	}
	switch {
	case unshaped != nil:
		return no(reasonNotReady, "%s: %w", a.node(), unshaped)
	case sh.Egress.Socket != socket && !sh.Egress.Beside(socket):
		return no(reasonListenAddr, "%s: its way out is %s, and it asks about %s", a.node(), sh.Egress, proxy.UnixPrefix+socket)
	}
	e := sh.Egress
	e.Socket = socket
	if err := checkEgressSocket(e, a.peer.UID()); err != nil {
		return no(reasonSocket, "%s: egress: %w", a.node(), err)
	}
	return nil
}

func socketNamesNobody(b identity.Binding) string {
	return fmt.Sprintf("egress is a Unix socket, at which nobody sees who calls: its mode and group say who may, and Binding %s cannot (applications: %v); leave applications out there, or give egress a loopback address", b.Name, b.Applications.Strings())
}

// socketAddress is the IP address and port that Envoy gives for one end, or none.
func socketAddress(p *authv3.AttributeContext_Peer) netip.AddrPort {
	sa := p.GetAddress().GetSocketAddress()
	a, err := netip.ParseAddr(sa.GetAddress())
	if err != nil || a.Zone() != "" || sa.GetProtocol() != corev3.SocketAddress_TCP || sa.GetPortValue() == 0 || sa.GetPortValue() > 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(sa.GetPortValue())) //nolint:gosec // looked at above
}

// Speaker is who may call out through a proxy, for reports.
type Speaker struct {
	// Who is it in words; "" where nobody is known.
	Who string
	// Problem is what is wrong or doubtful about it, and Fault what that is about.
	Problem string
	Fault   *api.ProxyStatus_SpeakerFault
	// Applications is what the Binding would say of it.
	Applications []string
}

// Speaker returns who may call out through a supervised proxy of this user, bound as it is.
func (s *Server) Speaker(sh proxy.Shape, uid uint32, bound svids.Name) Speaker {
	who := s.speaker(sh, uid, bound)
	if who.Problem != "" && who.Fault == nil {
		who.Fault = api.ProxyStatus_APPLICATIONS.Enum()
	}
	return who
}

func (s *Server) speaker(sh proxy.Shape, uid uint32, bound svids.Name) Speaker {
	b, ok := s.config.State.Load().BindingNamed(bound.Entry)
	if !ok || b.VirtualNode.Gateway { // nobody calls out through a gateway
		return Speaker{}
	}
	if err := CheckApp(sh); err != nil {
		return Speaker{Problem: err.Error(), Fault: api.ProxyStatus_APPLICATION_SOCKET.Enum()}
	}
	switch a := b.Applications; {
	case a.Anyone:
		return Speaker{Who: "every process of the host", Problem: "Binding " + b.Name + " lets anyone call out as this virtual node"}
	case sh.Egress.Socket != "":
		return opens(sh.Egress, uid, b)
	case a.Namespace && s.config.Task:
		return Speaker{Who: "every process of the task"}
	case !a.IsZero():
		return Speaker{Who: "those whom Binding " + b.Name + " names", Problem: rootAmong(a.UIDs)}
	}
	f, err := s.front(resources.RefOf(b), sh, bound)
	if err != nil {
		return Speaker{} // it has no configuration yet, which is said elsewhere
	}
	app, err := s.owners.of(f, b.Name)
	if err != nil {
		return Speaker{Problem: err.Error(), Applications: s.owners.listeningNow(f)}
	}
	named := identity.Applications{UIDs: []uint32{app.UID}}
	return Speaker{Who: app.String() + ", who holds the application's listeners", Problem: rootAmong(named.UIDs), Applications: named.Strings()}
}

// opens is who may call out through a proxy of this user whose way out is a Unix socket.
func opens(e proxy.Egress, uid uint32, b identity.Binding) Speaker {
	if !b.Applications.IsZero() {
		return Speaker{Problem: socketNamesNobody(b), Fault: api.ProxyStatus_EGRESS_SOCKET.Enum()}
	}
	err := checkEgressSocket(e, uid)
	var who string
	if err == nil {
		who, err = whoOpens(e)
	}
	if err != nil {
		return Speaker{Problem: "egress: " + err.Error(), Fault: api.ProxyStatus_EGRESS_SOCKET.Enum()}
	}
	return Speaker{Who: who}
}

func rootAmong(uids []uint32) string {
	if slices.Contains(uids, 0) {
		return "the application runs as user 0, so that every root process of the host, and of its containers in the same network namespace, may call out as this virtual node"
	}
	return ""
}
