package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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

// upstream is the agent's one connection to the servers. What came over it stays
// when it breaks.
type upstream struct {
	enrol   *enrolment
	keeper  *svids.Keeper
	conn    *grpc.ClientConn
	line    line // under conn
	log     *slog.Logger
	metrics *metrics
	logDir  string // that its operator names for access logs; "" for none

	// state is nil until the first complete set of the agent's own resources.
	state watched.Value[*resources.Snapshot]
	// connected is true while the connection stands.
	connected watched.Value[bool]
	// own is which virtual node a proxy is that the agent starts; set before Run.
	own func(name string) (proxy.Ref, bool)
}

// newUpstream prepares the connection; first is the SVID of the join.
func newUpstream(e *enrolment, first *svids.SVID, m *metrics, log *slog.Logger) (*upstream, error) {
	u := &upstream{enrol: e, log: log, metrics: m}
	u.keeper = svids.NewKeeper(u.issue, m.svids, log)
	u.keeper.Install(first)
	conn, err := e.dial(&u.line, func() *tls.Certificate {
		if s := u.keeper.Get(svids.Own); s != nil {
			return s.Certificate()
		}
		return nil
	}, byTrust(e.trust.Load, time.Now))
	if err != nil {
		return nil, err
	}
	u.conn = conn
	return u, nil
}

// id is the agent's own SPIFFE ID.
func (u *upstream) id() string {
	if s := u.keeper.Held()[svids.Own]; s != nil {
		return s.ID.String()
	}
	return ""
}

// ownNode is what the agent says of itself.
func (u *upstream) ownNode() *corev3.Node {
	n := &corev3.Node{Id: u.id(), UserAgentName: "signet-agent"}
	if u.logDir != "" {
		n.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{proxy.LogDirKey: structpb.NewStringValue(u.logDir)}}
	}
	return n
}

// Run keeps the connection, the agent's own resources and its SVIDs until ctx ends.
func (u *upstream) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.keeper.Run(ctx) })
	g.Go(func() error { return u.watchConnection(ctx) })
	g.Go(func() error { return u.stand(ctx) })
	g.Go(func() error {
		client := &ads.Client{
			Conn: u.conn, Node: u.ownNode(), Types: resources.Types,
			Complete: resources.Complete, OnSet: func(set *ads.Set, view *ads.Resource) { u.apply(ctx, set, view) }, Log: u.log,
		}
		return resources.Follow(ctx, client, u.log)
	})
	return g.Wait()
}

// apply takes a complete set of the agent's own resources.
func (u *upstream) apply(ctx context.Context, set *ads.Set, view *ads.Resource) {
	t, err := followed(u.enrol.trust.Load(), set)
	if err != nil {
		u.log.ErrorContext(ctx, "root set refused", slog.Any("err", err))
	}
	u.enrol.keep(t, u.enrol.agentID())
	s := resources.New(t.Roots.TrustDomain, set, view, u.state.Load())
	s.Own = u.own
	for _, p := range s.Problems {
		u.log.WarnContext(ctx, "resource not usable", slog.String("err", p))
	}
	u.log.InfoContext(ctx, "own resources", slog.Int("entries", len(s.Entries)), slog.Int("bindings", len(s.Bindings)),
		slog.Int("policies", len(s.Policies)), slog.Int("issuers", len(s.Issuers)), slog.Uint64("roots", t.Roots.Number))
	u.keeper.Retain(func(w svids.Name) bool { return w.Entry == svids.Own || s.Grants(w) })
	u.state.Set(s)
}

// issue asks for a batch of SVIDs, each for a key that is made here and now.
func (u *upstream) issue(ctx context.Context, wants []svids.Name) ([]svids.Issued, error) {
	request := &api.IssueRequest{}
	keys := make([]*ecdsa.PrivateKey, len(wants))
	for i, w := range wants {
		key, csr, err := svids.NewKey()
		if err != nil {
			return nil, err
		}
		keys[i] = key
		request.Requests = append(request.Requests, &api.SVIDRequest{Entry: w.Entry, Csr: csr})
	}
	answer, err := api.NewAgentAPIClient(u.conn).Issue(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("issue: %w", err)
	}
	if len(answer.GetResults()) != len(wants) {
		return nil, fmt.Errorf("%w: %d results for %d requests", svids.ErrBadAnswer, len(answer.GetResults()), len(wants))
	}
	results := make([]svids.Issued, len(wants))
	t, now := u.enrol.trust.Load(), time.Now()
	for i, r := range answer.GetResults() {
		if r.GetError() != "" {
			results[i].Err = &svids.RefusedError{Text: r.GetError()}
			continue
		}
		s, err := svids.New(wants[i].Entry, r.GetChain(), keys[i], t, now)
		if err == nil && s.ID != wants[i].ID {
			err = fmt.Errorf("%w: it is of %s", svids.ErrBadAnswer, s.ID)
		}
		results[i] = svids.Issued{SVID: s, Err: err}
	}
	return results, nil
}

// watchConnection follows the connection's state: when it is back, renewals that
// failed are tried at once.
func (u *upstream) watchConnection(ctx context.Context) error {
	defer u.connected.Set(false)
	var since time.Time                       // when it was ready last
	lost := retry.Tries{Policy: svids.Asking} // connections that were lost as soon as they stood
	for {
		state := u.conn.GetState()
		switch state {
		case connectivity.Idle:
			// gRPC waits only after attempts that fail: a balancer with nobody behind it
			// takes each connection, and closes it.
			if stood := time.Since(since); since.IsZero() || stood > lost.Settled {
				lost.Succeeded()
			} else if !watched.Sleep(ctx, lost.Failed(stood, nil)) {
				return nil
			}
			u.conn.Connect()
		case connectivity.Ready:
			since = time.Now()
			u.keeper.RetryNow()
		}
		u.connected.Set(state == connectivity.Ready)
		u.metrics.upstream.Set(map[bool]float64{true: 1}[state == connectivity.Ready])
		if !u.conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}

// stand attests anew by the host key when the agent's own SVID has ended, as
// after an outage longer than its life, or is no longer accepted. Without it an
// agent would never come back by itself. One that is banned ends.
func (u *upstream) stand(ctx context.Context) error {
	for tries := (retry.Tries{Policy: svids.Renewing(time.Hour)}); ; {
		held, changed := u.keeper.Watch()
		own := held[svids.Own]
		if own.Fresh(time.Now()) && status.Code(u.keeper.Failure(svids.Own)) != codes.Unauthenticated {
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
		next, err := u.enrol.renew(ctx)
		if err == nil {
			u.log.InfoContext(ctx, "attested again by the host key", slog.String("spiffe_id", next.ID.String()))
			u.keeper.Install(next)
			u.line.cut() // a connection that stands shows the old one for as long as it does
			u.conn.ResetConnectBackoff()
			continue
		}
		if banned(err) {
			return err
		}
		u.keeper.Failed(err)
		u.log.ErrorContext(ctx, "attest again", slog.Any("err", err))
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
