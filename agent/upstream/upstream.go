package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// Config is what an upstream is made of. Every field is needed, except LogDir.
type Config struct {
	// Conn is the connection; cut ends the one that stands under it, so that the next
	// is made with the certificate of that moment.
	Conn *grpc.ClientConn
	Cut  func()
	// Keeper keeps the SVIDs of the host, the agent's own with them.
	Keeper   *svids.Keeper
	Standing Standing
	// State and connected are set here and read elsewhere: what the servers told the
	// agent for itself, nil before the first complete set, and whether the connection stands.
	State     *watched.Value[*resources.Snapshot]
	Connected *watched.Value[bool]
	// Own returns which virtual node a proxy is that the agent starts.
	Own func(name string) (proxy.Ref, bool)
	// Check refuses selectors that nobody here can have.
	Check resources.Check
	// LogDir is the folder that the operator names for access logs; "" for none.
	LogDir string
	// Up is 1 while the connection stands.
	Up  prometheus.Gauge
	Log *slog.Logger
}

// Standing is what the host is known by to the servers.
type Standing interface {
	// Trust is by which roots servers and SVIDs are accepted now. It is never nil.
	Trust() *svids.Trust
	// Keep takes trust that may be newer, and keeps it over a restart.
	Keep(t *svids.Trust)
	// Renew attests the host anew by its key, over a connection of its own, and returns
	// the agent's SVID: that of another agent where a task was forgotten and has joined
	// again. A refusal has the server's code.
	Renew(ctx context.Context) (*svids.SVID, error)
}

// Upstream is the agent's one connection to the servers. What came over it stays
// when it breaks.
type Upstream struct{ config Config }

// New does nothing before Run.
func New(c Config) *Upstream { return &Upstream{c} }

// id is the agent's own SPIFFE ID.
func (u *Upstream) id() string {
	if s := u.config.Keeper.Held()[svids.Own]; s != nil {
		return s.ID.String()
	}
	return ""
}

// ownNode is what the agent says of itself.
func (u *Upstream) ownNode() *corev3.Node {
	n := &corev3.Node{Id: u.id(), UserAgentName: "signet-agent"}
	if u.config.LogDir != "" {
		n.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{proxy.LogDirKey: structpb.NewStringValue(u.config.LogDir)}}
	}
	return n
}

// Run keeps the connection, the agent's own resources and its SVIDs until ctx ends.
func (u *Upstream) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.config.Keeper.Run(ctx) })
	g.Go(func() error { return u.watchConnection(ctx) })
	g.Go(func() error { return u.stand(ctx) })
	g.Go(func() error { return u.follow(ctx) })
	return g.Wait()
}

// follow follows the agent's own resources. One that joined anew is another agent, to which they
// are given from the beginning.
func (u *Upstream) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		client := &ads.Client{
			Conn: u.config.Conn, Node: u.ownNode(), Types: resources.Types,
			Complete: resources.Complete, OnSet: func(set *ads.Set, view *ads.Resource) { u.apply(ctx, set, view) }, Log: u.config.Log,
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return u.while(ctx, client.Node.GetId()) })
		g.Go(func() error { return resources.Follow(ctx, client, u.config.Log) })
		if err := g.Wait(); err != nil && !errors.Is(err, errAnotherAgent) {
			return err
		}
	}
	return nil
}

// errAnotherAgent ends what an agent asked for that has joined anew.
var errAnotherAgent = errors.New("this is another agent")

// while returns errAnotherAgent as soon as the agent is another one than id.
func (u *Upstream) while(ctx context.Context, id string) error {
	for {
		_, changed := u.config.Keeper.Watch()
		if u.id() != id {
			return errAnotherAgent
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// apply takes a complete set of the agent's own resources.
func (u *Upstream) apply(ctx context.Context, set *ads.Set, view *ads.Resource) {
	t, err := followed(u.config.Standing.Trust(), set)
	if err != nil {
		u.config.Log.ErrorContext(ctx, "root set refused", slog.Any("err", err))
	}
	u.config.Standing.Keep(t)
	s := resources.New(t.Roots.TrustDomain, set, view, u.config.State.Load(), u.config.Check)
	s.Own = u.config.Own
	for _, p := range s.Problems {
		u.config.Log.WarnContext(ctx, "resource not usable", slog.String("err", p))
	}
	u.config.Log.InfoContext(ctx, "own resources", slog.Int("entries", len(s.Entries)), slog.Int("bindings", len(s.Bindings)),
		slog.Int("policies", len(s.Policies)), slog.Int("issuers", len(s.Issuers)), slog.Uint64("roots", t.Roots.Number))
	u.config.Keeper.Retain(func(w svids.Name) bool { return w.Entry == svids.Own || s.Grants(w) })
	u.config.State.Set(s)
}

// watchConnection follows the connection's state: when it is back, renewals that
// failed are tried at once.
func (u *Upstream) watchConnection(ctx context.Context) error {
	defer u.config.Connected.Set(false)
	var since time.Time                       // when it was ready last
	lost := retry.Tries{Policy: svids.Asking} // connections that were lost as soon as they stood
	for {
		state := u.config.Conn.GetState()
		switch state {
		case connectivity.Idle:
			// gRPC waits only after attempts that fail: a balancer with nobody behind it
			// takes each connection, and closes it.
			if stood := time.Since(since); since.IsZero() || stood > lost.Settled {
				lost.Succeeded()
			} else if !watched.Sleep(ctx, lost.Failed(stood, nil)) {
				return nil
			}
			u.config.Conn.Connect()
		case connectivity.Ready:
			since = time.Now()
			u.config.Keeper.RetryNow()
		}
		u.config.Connected.Set(state == connectivity.Ready)
		u.config.Up.Set(map[bool]float64{true: 1}[state == connectivity.Ready])
		if !u.config.Conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}

// stand attests anew when the agent's own SVID has ended, as
// after an outage longer than its life, or is no longer accepted. Without it an
// agent would never come back by itself. One that is banned ends.
func (u *Upstream) stand(ctx context.Context) error {
	for tries := (retry.Tries{Policy: svids.Renewing(time.Hour)}); ; {
		held, changed := u.config.Keeper.Watch()
		own := held[svids.Own]
		if own.Fresh(time.Now()) && status.Code(u.config.Keeper.Failure(svids.Own)) != codes.Unauthenticated {
			tries.Succeeded()
			timer := time.NewTimer(svids.Until(own.Ends()))
			select {
			case <-changed:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		next, err := u.config.Standing.Renew(ctx)
		if err == nil {
			u.config.Log.InfoContext(ctx, "attested again", slog.String("spiffe_id", next.ID.String()))
			u.config.Keeper.Install(next)
			u.config.Cut() // a connection that stands shows the old one for as long as it does
			u.config.Conn.ResetConnectBackoff()
			continue
		}
		if api.Banned(err) {
			return err
		}
		u.config.Keeper.Failed(err)
		u.config.Log.ErrorContext(ctx, "attest again", slog.Any("err", err))
		if !watched.Sleep(ctx, tries.Failed(0, err)) {
			return nil
		}
	}
}

// followed returns the trust that a set of resources leads to: a newer root set,
// if it is signed by the key that the agent has known since it joined. The list
// of authorities beside the signed document is not looked at: nothing vouches for it.
func followed(t *svids.Trust, set *ads.Set) (*svids.Trust, error) {
	for _, r := range set.Type(ads.BundleType) {
		var b api.Bundle
		if err := proto.Unmarshal(r.Body, &b); err != nil {
			return t, fmt.Errorf("bundle %s: %w", r.Name, err)
		}
		if b.GetTrustDomain() != t.Roots.TrustDomain.Name() {
			continue // federated bundles come with federation
		}
		next, err := svids.ParseTrust(b.GetSignedRootSet(), t.Roots.Pin())
		if err != nil {
			return t, fmt.Errorf("bundle %s: %w", r.Name, err)
		}
		// An older document may be true and yet lack a root that was taken away.
		if next.Roots.TrustDomain != t.Roots.TrustDomain || next.Roots.Number <= t.Roots.Number {
			continue
		}
		return next, nil
	}
	return t, nil
}
