package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/agent/envoy"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// maxLegs bounds the streams that local proxies which the agent did not start can
// make it open, maxShapes those for one virtual node: a proxy that claims ever new
// shapes must not keep those of other nodes from their views.
const (
	maxLegs   = 512
	maxShapes = 64
	// viewIdle is how long a view without a proxy is kept. Its stream from the
	// server counts against the bounds above, and a proxy that the agent did not
	// start may come with another address each time.
	viewIdle = 10 * time.Minute
)

// relay passes the server's views on to the proxies of this host, each with the
// secrets of the identity that its binding grants. It implements ads.Views.
type relay struct {
	u     *upstream
	authz *authzProcess
	// given is what no proxy says of itself: who decides for it, and where it may log.
	given   proxy.Shape
	drain   time.Duration // as ads.Server.Drain
	log     *slog.Logger
	metrics *metrics

	// pool holds equal resources of several legs once.
	pool ads.Pool
	// spawn takes what Run's goroutines do.
	spawn chan func(context.Context)
	// taken is where the proxies that the agent runs listen.
	taken taken
	// guests is told of streams that are given a view.
	guests *guests
	// changed counts what proxies said of their resources, for reports.
	changed watched.Value[int]

	mu      sync.Mutex
	legs    map[legKey]*leg        // guarded by mu
	views   map[viewKey]*proxyView // guarded by mu
	streams map[*guard]struct{}    // guarded by mu
	proxies map[string]supervised  // those that the agent runs, by name; guarded by mu
}

// viewKey names a view: replicas of one virtual node with one shape, bound by the
// same binding, share it.
type viewKey struct {
	leg  legKey
	want svids.Name
}

func newRelay(cfg Config, u *upstream, a *authzProcess, given proxy.Shape, m *metrics, log *slog.Logger) *relay {
	return &relay{
		u: u, authz: a, proxies: map[string]supervised{}, given: given, drain: cfg.DrainTime + time.Second, log: log, metrics: m,
		spawn: make(chan func(context.Context)), legs: map[legKey]*leg{}, views: map[viewKey]*proxyView{}, streams: map[*guard]struct{}{},
	}
}

// supervised is a proxy that the agent runs: what it is comes from the configuration,
// not from what it says.
type supervised struct {
	leg  legKey
	view *proxyView // the last that it was given; nil before
}

// Configure implements envoy.Views.
func (r *relay) Configure(name string, ref proxy.Ref, shape proxy.Shape) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proxies[name] = supervised{leg: legKey{ref, shape}}
}

// Unconfigure implements envoy.Views.
func (r *relay) Unconfigure(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.proxies, name)
}

func (r *relay) configured(name string) (supervised, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.proxies[name]
	return p, ok
}

// own is what a proxy of the configuration runs for.
func (r *relay) own(name string) (proxy.Ref, bool) {
	p, ok := r.configured(name)
	return p.leg.ref, ok
}

// viewOf is the view that a supervised proxy was given last, nil where it has none.
func (r *relay) viewOf(name string) *proxyView {
	p, _ := r.configured(name)
	return p.view
}

// nodeOf is what a process was given on its streams; the zero Ref where that is
// nothing, or several.
func (r *relay) nodeOf(p *attestation.Peer) proxy.Ref {
	var ref proxy.Ref
	r.mu.Lock()
	defer r.mu.Unlock()
	for g := range r.streams {
		if g.peer == nil || g.peer.PID() != p.PID() || g.peer.Alive() != nil { // a pid is another's once its process is gone
			continue
		}
		given := g.given()
		if given == (proxy.Ref{}) || given == ref {
			continue
		}
		if ref != (proxy.Ref{}) {
			return proxy.Ref{}
		}
		ref = given
	}
	return ref
}

// Run owns the goroutines of all legs and views until ctx ends.
func (r *relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.watchState(ctx) })
	wg.Go(func() { r.sweepIdle(ctx) })
	for {
		// Nothing here takes mu: who spawns may hold it.
		select {
		case f := <-r.spawn:
			wg.Go(func() { f(ctx) })
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *relay) watchState(ctx context.Context) {
	for {
		s, changed := r.u.state.Get()
		if s != nil {
			r.review(s)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// takeBackWithin is how long a proxy whose binding is gone has, beyond the
// draining of its listeners, to take what its view comes to in the end.
const takeBackWithin = 3 * time.Second

// review ends the views whose binding is gone, and in a while their streams:
// until then the proxy is told to drop what it has.
func (r *relay) review(s *resources.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for g := range r.streams {
		if w, ok := g.boundTo(); ok && !s.Grants(w) {
			g.leave(r.drain + takeBackWithin)
		}
	}
	maps.DeleteFunc(r.views, func(k viewKey, v *proxyView) bool {
		if s.Grants(k.want) {
			return false
		}
		close(v.gone)
		return true
	})
}

// sweepIdle ends the views that no proxy has used for long.
func (r *relay) sweepIdle(ctx context.Context) {
	for watched.Sleep(ctx, viewIdle/2) {
		// In an outage a proxy that comes back must find what was there.
		if r.u.connected.Load() {
			r.sweep(time.Now())
		}
	}
}

// sweep ends views that were idle until now, and the legs that have no view.
func (r *relay) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := r.ownLegs()
	maps.DeleteFunc(r.views, func(k viewKey, v *proxyView) bool {
		if v.view.Streams() > 0 {
			v.used = now
		}
		if used[k.leg] || now.Sub(v.used) < viewIdle {
			used[k.leg] = true
			return false
		}
		close(v.gone)
		return true
	})
	maps.DeleteFunc(r.legs, func(k legKey, l *leg) bool {
		if used[k] {
			return false
		}
		close(l.gone)
		return true
	})
}

// View implements ads.Views: who the peer is decides, and the node id selects
// among what it is bound to.
func (r *relay) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	g, ok := ctx.Value(guardKey{}).(*guard)
	if !ok {
		return nil, status.Error(codes.Internal, "internal error: a stream without its guard")
	}
	ref, err := proxy.ParseRef(node.GetId())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s := r.u.state.Load()
	if s == nil {
		return nil, status.Error(codes.Unavailable, resources.ErrNone.Error())
	}
	w, has, err := g.attest(ctx, s, ref)
	if err != nil {
		return nil, r.refuse(ctx, node.GetId(), has, err)
	}
	sh, err := r.shapeFor(node, has, ref)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if sh.EgressOpen {
		r.log.WarnContext(ctx, "the outbound listener is one that other hosts reach: who calls from there cannot be seen, and is let out only by applications: [anyone] of the Binding",
			slog.String("node", node.GetId()), slog.String("address", sh.Egress.String()))
	}
	v, err := r.view(ctx, viewKey{legKey{ref, sh}, w})
	if err != nil {
		return nil, err
	}
	g.bind(w, legKey{ref, sh})
	r.guests.stay(g.peer)
	return v.view, nil
}

// refuse tells a peer no more than that it may not; where two bindings fit it,
// which they are, since nobody else can mend that. What it was seen to be is for
// whoever writes its binding.
func (r *relay) refuse(ctx context.Context, node string, has identity.Selectors, err error) error {
	r.metrics.refused.WithLabelValues("xds").Inc()
	r.log.WarnContext(ctx, "xds.sock: peer refused", slog.String("node", node), slog.Any("selectors", has.Strings()), slog.Any("err", err))
	if _, ok := errors.AsType[*identity.AmbiguousError](err); ok {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return status.Error(codes.PermissionDenied, resources.ErrNotBound.Error())
}

// shapeFor is the configuration's for a proxy that the agent started, else what
// the node says of itself.
func (r *relay) shapeFor(node *corev3.Node, has identity.Selectors, ref proxy.Ref) (proxy.Shape, error) {
	name := resources.ProxyName(has)
	if p, ok := r.configured(name); ok {
		if p.leg.ref != ref {
			return proxy.Shape{}, fmt.Errorf("proxy %s is configured for %s", name, p.leg.ref)
		}
		return p.leg.shape, nil
	}
	sh, err := foreignShape(node, r.given)
	if err != nil {
		return proxy.Shape{}, err
	}
	if err := tryApp(sh); err != nil {
		r.metrics.refused.WithLabelValues("xds").Inc()
		r.log.Warn("xds.sock: proxy refused", slog.String("node", node.GetId()), slog.Any("selectors", has.Strings()), slog.Any("err", err))
		return proxy.Shape{}, errAppFolder
	}
	return sh, nil
}

// errAppFolder is all that a proxy which the agent did not start is told of the folder
// that it names: the agent looks with rights that the proxy may not have.
var errAppFolder = errors.New("app: the folder of the application's sockets is missing, or not as it must be (docs/AGENT.md); the log of the agent says which")

// tryAppOf is tryApp for the proxy that a process is. Without a shape it has no
// application.
func (r *relay) tryAppOf(pid int, has identity.Selectors, w svids.Name) error {
	sh, err := r.shapeOfPeer(pid, has, w)
	if err != nil {
		return nil //nolint:nilerr // who needs the shape says so
	}
	return tryApp(sh)
}

// foreignShape is what a proxy which the agent did not start declares of itself,
// with what is not its own to say from ours. What the server would refuse is
// refused here: its refusal would reach the log and not the proxy.
func foreignShape(node *corev3.Node, ours proxy.Shape) (proxy.Shape, error) {
	return proxy.ParseShape(node.GetMetadata(), func(s *proxy.Shape) {
		s.AuthzSocket, s.WayoutSocket, s.AccessLogDir, s.Proxy = ours.AuthzSocket, ours.WayoutSocket, ours.AccessLogDir, ""
	})
}

// view returns the view of key, beginning it where it is new.
func (r *relay) view(ctx context.Context, key viewKey) (*proxyView, error) {
	r.u.keeper.Need(key.want)
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.views[key]; v != nil {
		v.used = time.Now()
		return v, nil
	}
	l := r.legs[key.leg]
	if l == nil {
		if err := r.room(key.leg); err != nil {
			return nil, err
		}
		l = &leg{key: key.leg, pool: &r.pool, log: r.log, loaded: &r.authz.loaded, stamped: r.authz.stamp, gone: make(chan struct{})}
		if err := r.run(ctx, func(ctx context.Context) { l.Run(ctx, r.u.conn) }); err != nil {
			return nil, err
		}
		r.legs[key.leg] = l
	}
	v := newProxyView(l, key.want, r.u)
	v.taken, v.drain = &r.taken, r.drain+takeBackWithin
	v.told = func() { r.changed.Update(func(n int) int { return n + 1 }) }
	if err := r.run(ctx, v.Run); err != nil {
		return nil, err
	}
	r.views[key] = v
	return v, nil
}

// room returns an error where there is none for a leg. Those of the proxies of the
// configuration have theirs: no other proxy, whatever it declares, takes it. The
// caller holds mu.
func (r *relay) room(k legKey) error {
	own := r.ownLegs()
	if own[k] {
		return nil
	}
	all, same := 0, 0
	for other := range r.legs {
		if own[other] {
			continue
		}
		if all++; other.ref == k.ref {
			same++
		}
	}
	if all >= maxLegs || same >= maxShapes {
		return status.Errorf(codes.ResourceExhausted, "%d views are relayed already to proxies that the agent did not start, %d of this virtual node", all, same)
	}
	return nil
}

// ownLegs are those of the proxies of the configuration. The caller holds mu.
func (r *relay) ownLegs() map[legKey]bool {
	own := map[legKey]bool{}
	for _, p := range r.proxies {
		own[p.leg] = true
	}
	return own
}

// run gives f to Run.
func (r *relay) run(ctx context.Context, f func(context.Context)) error {
	select {
	case r.spawn <- f:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// foreseen reports whether a selector is one that a proxy is known to have before
// it runs, as envoy.selectors lists them.
func foreseen(s identity.Selector) bool {
	key, _, _ := strings.Cut(s.Value, ":")
	return slices.Contains([]string{"unix:uid", "unix:gid", "unix:path", "signet:proxy"}, s.Type+":"+key)
}

// forProxy is the view of a proxy that the agent supervises, before it runs: by
// the binding that it will fit.
func (r *relay) forProxy(ctx context.Context, name string, has identity.Selectors) (*proxyView, error) {
	p, ok := r.configured(name)
	if !ok {
		return nil, fmt.Errorf("internal error: proxy %s is not configured", name)
	}
	ref := p.leg.ref
	s := r.u.state.Load()
	if s == nil {
		return nil, resources.ErrNone
	}
	var candidates []identity.Binding
	for _, b := range s.Bindings {
		if resources.RefOf(b) != ref {
			continue
		}
		// What is not known before the program runs is looked at then: its hash, its unit.
		b.Selectors = slices.DeleteFunc(slices.Clone(b.Selectors), func(sel identity.Selector) bool { return !foreseen(sel) })
		candidates = append(candidates, b)
	}
	b, ok, err := identity.MatchBindings(candidates, has)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no binding lets proxy %s (%s) be %s", name, has, ref)
	}
	v, err := r.view(ctx, viewKey{p.leg, svids.Name{Entry: b.Name, ID: s.IDs[b.Name]}})
	if err != nil || v == p.view {
		return v, err
	}
	r.mu.Lock()
	if p, ok := r.proxies[name]; ok {
		p.view = v
		r.proxies[name] = p
	}
	r.mu.Unlock()
	r.changed.Update(func(n int) int { return n + 1 })
	return v, nil
}

// views are the relay's, as the envoy part takes them.
type views struct{ *relay }

// For implements envoy.Views.
func (v views) For(ctx context.Context, name string, has identity.Selectors) (envoy.View, error) {
	view, err := v.forProxy(ctx, name, has)
	if err != nil {
		return nil, err // and no view, not even a nil one of ours
	}
	return view, nil
}

// Changed implements envoy.Views.
func (v views) Changed() <-chan struct{} {
	_, changed := v.u.state.Get()
	return changed
}

// event notes what a proxy did with its resources.
func (r *relay) event(e ads.Event) {
	switch e.Kind {
	case ads.Rejected:
		r.log.Warn("resource rejected by a proxy", slog.String("node", e.View), slog.String("type", e.Type), slog.String("name", e.Name), slog.String("version", e.Version), slog.String("err", e.Message))
		r.changed.Update(func(n int) int { return n + 1 })
	case ads.Stuck:
		r.log.Warn("proxy did not acknowledge in time", slog.String("node", e.View), slog.String("type", e.Type), slog.String("err", e.Message))
	case ads.Opened, ads.Closed:
		r.log.Debug("proxy stream "+e.Kind.String(), slog.String("node", e.View), slog.String("stream", e.Stream), slog.String("err", e.Message))
		r.changed.Update(func(n int) int { return n + 1 })
	}
}

// open is the number of streams that proxies have.
func (r *relay) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}

// attestedSelectors are the selectors of the process behind a call.
func attestedSelectors(ctx context.Context) (identity.Selectors, error) {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return nil, errors.New("the connection was not attested")
	}
	return p.Selectors(ctx)
}
