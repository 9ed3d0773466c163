package authzproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/agent/resources"
	"signet.example/attestation"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// Gate accepts ext_authz connections, attests who is at the other end, and
// hands over those of a proxy that is bound here. It reads nothing from them.
type Gate struct {
	attestor *attestation.Attestor
	state    *watched.Value[*resources.Snapshot]
	over     *watched.Value[*handoverTo]
	nodeOf   func(*attestation.Peer) proxy.Ref
	users    Users
	refused  prometheus.Counter
	log      *slog.Logger
}

// Users are those of whom something is known here: they have room of their own.
type Users interface {
	Knows(uid uint32) bool
	// Know is told of one to whom something was given.
	Know(uid uint32)
}

// Serve accepts on l, whose connections are *net.UnixConn, until ctx ends.
func (g *Gate) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // ends Accept
	defer stop()
	attesting := authzTally(g.users.Knows) // by who asks, so that nobody takes the others' share
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("authz.sock: %w", err)
			}
			// Out of descriptors, say: others may end theirs.
			g.log.ErrorContext(ctx, "authz.sock: accept", slog.Any("err", err))
			if !watched.Sleep(ctx, 10*time.Millisecond) {
				return nil
			}
			continue
		}
		c, ok := conn.(*net.UnixConn)
		if !ok {
			return errors.Join(errors.New("internal error: authz.sock is no Unix socket"), conn.Close())
		}
		_, leave, err := attesting.EnterConn(c, g.attestor)
		if err != nil {
			g.refuse(ctx, c, err)
			continue
		}
		wg.Go(func() {
			defer leave()
			if err := g.admit(ctx, c); err != nil {
				g.refuse(ctx, c, err)
				return
			}
			_ = c.Close() // ours; the authz process has its own
		})
	}
}

func (g *Gate) refuse(ctx context.Context, c *net.UnixConn, err error) {
	g.refused.Inc()
	g.log.WarnContext(ctx, "authz.sock: connection refused", slog.Any("err", err))
	_ = c.Close() // nothing was read from it
}

func (g *Gate) admit(ctx context.Context, c *net.UnixConn) error {
	peer, err := g.attestor.Peer(c)
	if err != nil {
		return err
	}
	defer func() { _ = peer.Close() }() // a pidfd
	has, err := peer.Selectors(ctx)
	if err != nil {
		return err
	}
	s := g.state.Load()
	if s == nil {
		return resources.ErrNone
	}
	// An authorization request has no node id: the destination is who the peer is,
	// and where bindings for several nodes fit it, the one that it is on xds.sock.
	b, id, err := s.Binding(has, g.nodeOf(peer))
	if err != nil {
		return fmt.Errorf("pid %d: %w", peer.PID(), err)
	}
	g.users.Know(peer.UID())
	bounded, cancel := context.WithTimeout(ctx, proxy.AnswerWithin) // no request on it waits longer
	defer cancel()
	over, err := g.over.Wait(bounded, func(o *handoverTo) bool { return o != nil })
	if err != nil {
		return fmt.Errorf("no authz process: %w", err)
	}
	return over.give(c, b, id, cmp.Or(resources.ProxyName(has), b.Name))
}
