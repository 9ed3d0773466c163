package agent

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

	"signet.example/agent/envoy"
	"signet.example/agent/limits"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// wayOut decides who may speak with a proxy's identity. Whoever connects to an
// outbound listener calls as its virtual node, so that Envoy asks here for each
// new connection (network ext_authz), before it reads a request. It is part of
// the process with the keys: that the authz process is gone changes nothing.
type wayOut struct {
	authv3.UnimplementedAuthorizationServer
	state   *watched.Value[*resources.Snapshot]
	relay   *relay.Relay
	owners  *owners
	guests  *limits.Guests
	metrics *metrics
	log     *slog.Logger
}

// Check implements Envoy's network ext_authz. Whatever goes wrong denies.
func (w *wayOut) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	start := time.Now()
	caller, err := w.decide(ctx, req.GetAttributes())
	w.metrics.wayOutSeconds.Observe(time.Since(start).Seconds())
	if err == nil {
		w.metrics.wayOut.WithLabelValues(reasonAllowed).Inc()
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}}, nil
	}
	reason := reasonError
	if no, ok := errors.AsType[*notAllowed](err); ok {
		reason = no.reason
	}
	w.metrics.wayOut.WithLabelValues(reason).Inc()
	w.log.WarnContext(ctx, "way out: connection refused", slog.String("reason", reason), slog.String("caller", caller), slog.Any("err", err))
	return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)}}, nil
}

// Why a connection was let out or not.
const (
	reasonAllowed    = "allowed"
	reasonProxy      = "proxy"     // who asks is not a proxy here
	reasonGone       = "gone"      // nobody holds the connection any more
	reasonNamespace  = "namespace" // the proxy is in another network namespace
	reasonNoOwner    = "no_owner"  // nobody is known to be the application
	reasonNewOwner   = "new_owner" // the application belongs to somebody else than before
	reasonNotTheirs  = "not_owner" // the caller is not the application
	reasonError      = "error"
	reasonNotReady   = "not_ready" // the agent does not know the proxy's configuration yet
	reasonSocket     = "socket"    // a Unix socket of the proxy or of its application does not keep others out, or the Binding asks who calls there
	reasonListenAddr = "address"   // the proxy says nothing usable of the connection
)

var wayOutReasons = []string{
	reasonAllowed, reasonProxy, reasonGone, reasonNamespace, reasonNoOwner, reasonNewOwner, reasonNotTheirs, reasonError, reasonNotReady, reasonSocket, reasonListenAddr,
}

// notAllowed is a refusal with its reason for the counter.
type notAllowed struct {
	reason string
	err    error
}

func (n *notAllowed) Error() string { return n.err.Error() }
func (n *notAllowed) Unwrap() error { return n.err }

func no(reason, format string, args ...any) error {
	return &notAllowed{reason, fmt.Errorf(format, args...)}
}

// decide returns nil if the connection may go out. caller is for the log.
func (w *wayOut) decide(ctx context.Context, at *authv3.AttributeContext) (caller string, err error) {
	from, to := socketAddress(at.GetSource()), socketAddress(at.GetDestination())
	caller = from.String()
	peer, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return caller, no(reasonProxy, "the connection was not attested")
	}
	has, err := peer.Selectors(ctx)
	if err != nil {
		return caller, no(reasonProxy, "who asks: %w", err)
	}
	s := w.state.Load()
	if s == nil {
		return caller, no(reasonNotReady, "%w", resources.ErrNone)
	}
	b, id, err := s.Binding(has, proxy.Ref{})
	if err != nil {
		return caller, no(reasonProxy, "pid %d: %w", peer.PID(), err)
	}
	w.guests.Stay(peer)
	// Again: the folder was looked at when the proxy started, and may have changed.
	if err := w.relay.CheckAppOf(peer.PID(), has, svids.Name{Entry: b.Name, ID: id}); err != nil {
		return caller, no(reasonSocket, "%s: %w", resources.RefOf(b), err)
	}
	if socket := at.GetDestination().GetAddress().GetPipe().GetPath(); socket != "" {
		return socket, w.atSocket(peer, has, svids.Name{Entry: b.Name, ID: id}, b, socket)
	}
	if !from.IsValid() || !to.IsValid() {
		return caller, no(reasonListenAddr, "%s: a connection without two IP addresses", resources.RefOf(b))
	}
	same, err := peer.SameNetwork()
	switch {
	case err != nil:
		return caller, no(reasonNamespace, "%s: %w", resources.RefOf(b), err)
	case b.Applications.Anyone, !same && b.Applications.Namespace:
		return caller, nil
	case !same:
		return caller, no(reasonNamespace, "%s: the proxy is in another network namespace than the agent, which does not see who calls there: let the namespace as a whole call out by `applications: [namespace]` in Binding %s", resources.RefOf(b), b.Name)
	}
	holder, err := attestation.ConnectionOwner(from, to)
	if err != nil {
		return caller, no(reasonGone, "%s: %w", resources.RefOf(b), err)
	}
	caller = owner{UID: holder.UID}.String()
	if !b.Applications.IsZero() {
		if !b.Applications.Allows(holder.UID) {
			return caller, no(reasonNotTheirs, "%s: %s is not among the applications of Binding %s (%v)", resources.RefOf(b), caller, b.Name, b.Applications.Strings())
		}
		return caller, nil
	}
	f, err := w.relay.FrontOfPeer(peer.PID(), has, svids.Name{Entry: b.Name, ID: id}, b)
	if err != nil {
		return caller, no(reasonNotReady, "%s: %w", resources.RefOf(b), err)
	}
	return caller, w.owners.allows(f, b, holder)
}

// atSocket decides about a connection to an outbound listener that is a Unix
// socket. Envoy does not say who connected there (the peer of a Unix socket has no
// name), and the kernel does not say whose connection it asks about: whoever can
// open the socket may call out, so that its folder, owner and mode must be as
// they were asked for.
func (w *wayOut) atSocket(peer *attestation.Peer, has identity.Selectors, bound svids.Name, b identity.Binding, socket string) error {
	node := resources.RefOf(b).String()
	if b.Applications.Anyone {
		return nil
	}
	if !b.Applications.IsZero() {
		return no(reasonSocket, "%s: %s", node, socketNamesNobody(b))
	}
	sh, err := w.relay.ShapeOfPeer(peer.PID(), has, bound)
	switch {
	case err != nil:
		return no(reasonNotReady, "%s: %w", node, err)
	case sh.Egress.Socket != socket:
		return no(reasonListenAddr, "%s: its way out is %s, and it asks about %s", node, sh.Egress, proxy.UnixPrefix+socket)
	}
	if err := tryEgressSocket(sh.Egress, peer.UID()); err != nil {
		return no(reasonSocket, "%s: egress: %w", node, err)
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

// speaker is who may call out through a supervised proxy, bound as it is, for reports:
// in words, what is wrong or doubtful about it, and what the Binding would say of it.
func (w *wayOut) speaker(p envoy.Proxy, bound svids.Name) (who, problem string, applications []string) {
	b, ok := w.state.Load().BindingNamed(bound.Entry)
	if !ok {
		return "", "", nil
	}
	if err := tryApp(p.Shape); err != nil {
		return "", err.Error(), nil
	}
	switch a := b.Applications; {
	case a.Anyone:
		return "every process of the host", "Binding " + b.Name + " lets anyone call out as this virtual node", nil
	case p.Shape.Egress.Socket != "":
		who, problem = opens(p, b)
		return who, problem, nil
	case !a.IsZero():
		return "those whom Binding " + b.Name + " names", rootAmong(a.UIDs), nil
	}
	f, err := w.relay.FrontOf(p.Ref, p.Shape, bound)
	if err != nil {
		return "", "", nil // it has no configuration yet, which is said elsewhere
	}
	app, err := w.owners.of(f, b)
	if err != nil {
		return "", err.Error(), w.owners.listeningNow(f)
	}
	named := identity.Applications{UIDs: []uint32{app.UID}}
	return app.String() + ", who holds the application's listeners", rootAmong(named.UIDs), named.Strings()
}

// opens is who may call out through a proxy whose way out is a Unix socket.
func opens(p envoy.Proxy, b identity.Binding) (who, problem string) {
	if !b.Applications.IsZero() {
		return "", socketNamesNobody(b)
	}
	err := tryEgressSocket(p.Shape.Egress, p.UID())
	if err == nil {
		who, err = whoOpens(p.Shape.Egress)
	}
	if err != nil {
		return "", "egress: " + err.Error()
	}
	return who, ""
}

func rootAmong(uids []uint32) string {
	if slices.Contains(uids, 0) {
		return "the application runs as user 0, so that every root process of the host, and of its containers in the same network namespace, may call out as this virtual node"
	}
	return ""
}
