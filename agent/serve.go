package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"signet.example/ads"
	"signet.example/agent/limits"
	"signet.example/agent/operator"
	"signet.example/agent/workloads"
	"signet.example/attestation"
	"signet.example/internal/decode"
	"signet.example/internal/overload"
	"signet.example/internal/underway"
	"signet.example/internal/unixsock"
	"signet.example/sds"
)

// This file is what the sockets serve, each to peers that were attested.

// routedWait is how long a request may wait for a connection of the cluster that
// it was routed to: Envoy's time for a connection (xds), and one for a retry.
const routedWait = 2 * time.Second

func (a *agent) serveADS() {
	options := append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("xds")), ads.ServerOptions(a.room.Codec())...)
	secrets := workloads.NewSecrets(a.source("xds"), workloads.Selectors, a.log)
	guard := func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if ads.OfSecrets(info.FullMethod) {
			return secrets.Guard(srv, stream, info, next)
		}
		return a.relay.Guard(srv, stream, info, next)
	}
	a.xds = decode.NewServer(append(options, grpc.ChainStreamInterceptor(limits.NewStreams(a.guests.Knows).Stream, guard))...)
	// A listener that changed goes on with its old routes while it drains.
	(&ads.Server{Views: a.relay, Peer: whoAsks, Log: a.log, Events: a.relay.Event, Drain: a.cfg.DrainTime + time.Second, Linger: routedWait}).Register(a.xds)
	(&ads.Server{Views: secrets, Peer: whoAsks, Log: a.log}).RegisterSecrets(a.xds)
	a.metrics.streams("xds", func() int { return a.relay.Open() + secrets.Open() })
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
		case errors.Is(err, underway.ErrUnread):
			why = underway.ErrUnread.Error()
		case errors.Is(err, underway.ErrUnmeant):
			why = underway.ErrUnmeant.Error()
		case errors.Is(err, overload.ErrShort):
			why = overload.ErrShort.Error()
		}
		a.log.Warn(socket+".sock: connection closed: "+why, slog.Any("uid", c.UID), slog.Any("pid", c.PID),
			slog.Any("err", err), slog.String("hint", workloads.Hint(err)))
	}
}

// keptOut counts several at once that came too often, and logs them once a second. It is for
// one goroutine.
func (a *agent) keptOut(socket string) func(n int, last unixsock.Peer, err error) {
	refused := a.metrics.refused.WithLabelValues(socket)
	var logged time.Time
	closed := 0
	return func(n int, last unixsock.Peer, err error) {
		refused.Add(float64(n))
		if closed += n; time.Since(logged) < time.Second {
			return
		}
		a.log.Warn(socket+".sock: connections closed: they come too often", slog.Int("closed", closed), slog.Any("uid", last.UID), slog.Any("pid", last.PID), slog.Any("err", err))
		logged, closed = time.Now(), 0
	}
}

// source is what the processes that come to a socket may hold.
func (a *agent) source(socket string) *workloads.Source {
	return workloads.New(workloads.Config{
		Socket: socket, State: &a.link.state, Connected: &a.link.connected, Trust: a.link.enrol.Trusted(), Keeper: a.link.keeper,
		Stay: a.guests.StayFor, Refused: a.metrics.refused.WithLabelValues(socket), Log: a.log,
	})
}

func (a *agent) serveWorkloadAPI() {
	open := limits.NewCalls(a.guests.Knows)
	header := func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		// For reflection too: the header guards the endpoint (Workload Endpoint 3).
		if err := sds.CheckHeader(stream.Context()); err != nil {
			return err
		}
		return open.Stream(srv, stream, info, next)
	}
	a.workload = decode.NewServer(append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("workload")),
		grpc.MaxRecvMsgSize(64<<10), grpc.StreamInterceptor(header))...)
	sds.NewWorkloadAPI(a.source("workload"), workloads.Selectors, a.log).Register(a.workload)
	reflection.Register(a.workload) // Workload Endpoint 7: SHOULD
	a.metrics.streams("workload", open.Count)
}

// wayOutWorkers keep their stacks from one question to the next: in a goroutine of its own
// each would grow one from nothing. More questions at a time get goroutines of their own.
const wayOutWorkers = 8

// serveWayOut serves who may call out, to proxies alone.
func (a *agent) serveWayOut() {
	a.calls = decode.NewServer(append(limits.Options(a.attestor, a.guests, a.room, a.turnedAway("wayout")),
		grpc.MaxRecvMsgSize(64<<10), grpc.NumStreamWorkers(wayOutWorkers), grpc.UnaryInterceptor(limits.NewStreams(a.guests.Knows).Unary))...)
	authv3.RegisterAuthorizationServer(a.calls, a.wayOut)
}

// explainer shows a process to whoever runs the host, as who connects is seen.
func (a *agent) explainer() *operator.Explainer {
	return operator.NewExplainer(operator.Config{
		Attestor: a.attestor, State: &a.link.state, Keeper: a.link.keeper, Connected: &a.link.connected, Check: a.cfg.Mode.check(), Log: a.log,
	})
}
