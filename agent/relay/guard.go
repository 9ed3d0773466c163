package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

// guard stands before one stream of a proxy: it attests the peer for each answer
// and ends the stream when the binding is taken away.
type guard struct {
	grpc.ServerStream

	ctx    context.Context //nolint:containedctx // grpc.ServerStream's own contract
	cancel context.CancelCauseFunc
	peer   *attestation.Peer
	relay  *Relay

	mu    sync.Mutex
	bound bool // the four below are set; guarded by mu
	as    svids.Name
	ref   proxy.Ref
	shape proxy.Shape
	// foreign is what it follows as a proxy that the agent did not start, in this network namespace.
	foreign *View
	// leaving is the time that is left to take things away, once the binding is gone.
	leaving *time.Timer
}

type guardKey struct{}

// Guard is the interceptor that puts a guard before each stream of xds.sock.
func (r *Relay) Guard(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	peer, ok := attestation.PeerFromContext(stream.Context())
	if !ok {
		return status.Error(codes.PermissionDenied, resources.ErrNotBound.Error())
	}
	if err := r.mayAsk(stream.Context(), peer); err != nil {
		return err
	}
	g := &guard{ServerStream: stream, peer: peer, relay: r}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	g.ctx, g.cancel = context.WithValue(ctx, guardKey{}, g), cancel
	defer g.left()
	r.mu.Lock()
	r.streams[g] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.streams, g)
		r.mu.Unlock()
	}()
	err := next(srv, g)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, resources.ErrNotBound):
		return status.Error(codes.PermissionDenied, resources.ErrNotBound.Error())
	case errors.Is(cause, errUnseen):
		return status.Error(codes.Unavailable, errUnseen.Error())
	}
	return err
}

// mayAsk refuses a process that no binding fits before anything that it sends is decoded.
// Which binding counts is found with its node id.
func (r *Relay) mayAsk(ctx context.Context, peer *attestation.Peer) error {
	s := r.config.State.Load()
	if s == nil {
		return status.Error(codes.Unavailable, resources.ErrNone.Error())
	}
	has, err := peer.Selectors(ctx)
	if err == nil && resources.ProxyName(has) == "" && !s.Fits(has) {
		err = resources.ErrNotBound
	}
	if err != nil {
		return r.refuse(ctx, "", has, err)
	}
	return nil
}

// Context implements grpc.ServerStream.
func (g *guard) Context() context.Context { return g.ctx }

// SendMsg lets an answer pass only to the process that asked, as it is now:
// answers carry keys, and a process may have become another one.
func (g *guard) SendMsg(m any) error {
	g.mu.Lock()
	bound, leaving, w, ref := g.bound, g.leaving != nil, g.as, g.ref
	g.mu.Unlock()
	s := g.relay.config.State.Load()
	if !bound || s == nil {
		return status.Error(codes.Internal, "internal error: an answer to a peer that is not bound")
	}
	if leaving {
		return g.sendLast(m)
	}
	now, has, err := g.attest(g.ctx, s, ref)
	if err == nil && now != w {
		err = resources.ErrNotBound
	}
	if err != nil {
		g.cancel(endsWith(err))
		return g.relay.refuse(g.ctx, ref.String(), has, err)
	}
	return g.ServerStream.SendMsg(m)
}

// sendLast lets an answer pass that takes away what the peer was given, as long as
// it is the process that it was given to, and runs the same program.
func (g *guard) sendLast(m any) error {
	if _, err := g.peer.Selectors(g.ctx); err != nil {
		g.cancel(endsWith(err))
		return g.relay.refuse(g.ctx, "", nil, err)
	}
	return g.ServerStream.SendMsg(m)
}

// leave gives the stream of a peer whose binding is gone so long to be told.
func (g *guard) leave(within time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving == nil {
		g.leaving = time.AfterFunc(within, func() { g.cancel(resources.ErrNotBound) })
	}
}

// left ends what leave began.
func (g *guard) left() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving != nil {
		g.leaving.Stop()
	}
}

// attest finds out what the peer is now, and which binding lets it be the proxy
// of what ref names; where none does, at least the former.
func (g *guard) attest(ctx context.Context, s *resources.Snapshot, ref proxy.Ref) (svids.Name, identity.Selectors, error) {
	has, err := g.peer.Selectors(ctx)
	if err != nil {
		return svids.Name{}, nil, err
	}
	b, id, err := s.Binding(has, ref)
	if err != nil {
		return svids.Name{}, has, err
	}
	return svids.Name{Entry: b.Name, ID: id}, has, nil
}

// bind notes what the stream was given.
func (g *guard) bind(w svids.Name, key subscriptionKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bound, g.as, g.ref, g.shape = true, w, key.ref, key.shape
}

// follow notes what the stream of a foreign proxy is given. One of another network namespace
// is none that this host could register: nobody here sees where it listens.
func (g *guard) follow(ctx context.Context, v *View) {
	_, same, err := g.peer.Look(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.foreign = nil; err == nil && same {
		g.foreign = v
	}
}

// follows is what follow noted, nil where that is nothing.
func (g *guard) follows() *View {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.foreign
}

// boundAs is what the stream was given, and in which shape.
func (g *guard) boundAs() (svids.Name, proxy.Shape, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.as, g.shape, g.bound
}

// given is what the stream was given, the zero Ref where it was nothing.
func (g *guard) given() proxy.Ref {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ref
}

func (g *guard) boundTo() (svids.Name, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.as, g.bound
}
