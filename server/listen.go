package server

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/internal/decode"
	"signet.example/internal/lanes"
	"signet.example/internal/underway"
	"signet.example/server/access"
	"signet.example/server/conns"
	"signet.example/server/issuance"
	"signet.example/server/join"
)

// face is one gRPC server and its listener.
type face struct {
	server   *grpc.Server
	listener net.Listener
}

// serve answers on the face's listener until the face is stopped, which may come first:
// a server that is told to stop while it starts has not failed.
func (f face) serve() error {
	err := f.server.Serve(f.listener)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// stop ends the faces, then the work behind them.
func (s *server) stop(faces []face, room *underway.Room, stopWork context.CancelFunc) {
	s.ready.Store(false)
	close(s.stopping)
	s.sessions.Stop()
	_ = os.Remove(s.dir.addresses()) // a reader that finds it finds nobody there
	s.access.Close()
	hard := time.AfterFunc(stopGrace, func() {
		room.Close()
		for _, f := range faces {
			f.server.Stop()
		}
	})
	defer hard.Stop()
	for _, f := range faces {
		f.server.GracefulStop() // waits for the handlers, also where it was cut short
	}
	s.sessions.Close() // before what reports are written to
	stopWork()
}

// agentServer is the agents' face.
func (s *server) agentServer(attestors *nodes.Attestors, connections *conns.Listener, room *underway.Room) *grpc.Server {
	opts := append(agentServerOptions(s.cfg.Lifetimes.Agent), ads.ServerOptions(room.Codec())...)
	opts = append(opts,
		grpc.Creds(s.access.Credentials(credentials.NewTLS(s.own.TLSConfig()), room)),
		grpc.StatsHandler(room.Handler()),
		grpc.InTapHandle(s.access.Tap),
		grpc.UnaryInterceptor(s.access.Unary),
		grpc.StreamInterceptor(s.access.Stream),
	)
	g := decode.NewServer(opts...)
	svids := issuance.New(issuance.Config{
		Batches: s.signing, One: s.signer, Limits: newLimiters(issuePerSecond, issueBurst),
		Metrics: issuance.Metrics{Issued: s.metrics.svids, Limited: s.metrics.limited},
		Agent:   s.cfg.Lifetimes.Agent, Workload: s.cfg.Lifetimes.SVID,
	})
	api.RegisterAgentAPIServer(g, &agentAPI{
		join: join.New(join.Config{
			TrustDomain: s.td, Evidence: attestors, Agents: s.roster, Stored: s.store, Instances: s.instances, SVIDs: svids,
			First: newLimiters(firstPerSecond, firstBurst), Lanes: lanes.New(), Waiting: lanes.Of(waitingAtOnce), Strangers: newLimiters(strangersPerSecond, strangersBurst), Known: newLimiters(attestPerSecond, attestBurst),
			Group: func(n nodes.Node) (string, error) { return groupOf(s.model(), n) },
			Roots: func() []byte { return s.authority.Roots().Signed }, Vouched: connections.Vouched,
			Audit: s.audit, Log: s.log, Clock: s.clock,
		}),
		departures: s.departing, svids: svids, sessions: s.sessions, model: s.model, turnedAway: s.refusals.Refused,
	})
	(&ads.Server{Views: s.views, Peer: agentOf, Log: s.log}).Register(g)
	return g
}

// agentOf is which agent's a stream is.
func agentOf(ctx context.Context) string {
	if c, err := access.CallerOf(ctx); err == nil {
		return c.Agent.ID
	}
	return ""
}
