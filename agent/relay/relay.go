package relay

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/tlsfiles"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// maxSubscriptions bounds the streams that local proxies which the agent did not start can
// make it open, maxShapes those for one virtual node: a proxy that claims ever new
// shapes must not keep those of other nodes from their views.
const (
	maxSubscriptions = 512
	maxShapes        = 64
	// viewIdle is how long a view without a proxy is kept. Its stream from the
	// server counts against the bounds above, and a proxy that the agent did not
	// start may come with another address each time.
	viewIdle = 10 * time.Minute
)

// Relay passes the server's views on to the proxies of this host, each with the
// secrets of the identity that its binding grants. It implements ads.Views.
type Relay struct {
	config Config

	// pool holds equal resources of several subscriptions once.
	pool ads.Pool
	// spawn takes what Run's goroutines do; ended is closed when Run takes no more.
	spawn chan func(context.Context)
	ended chan struct{}
	// addresses is where the proxies that the agent runs listen.
	addresses addresses
	// tenants is who may listen at the addresses of services.
	tenants tenants
	// changed counts what proxies said of their resources, for reports.
	changed watched.Value[int]
	looks   atomic.Bool // see Looks
	// served counts the sets that were released.
	served watched.Value[int]

	mu      sync.Mutex
	subs    map[subscriptionKey]*subscription // guarded by mu
	views   map[viewKey]*View                 // guarded by mu
	streams map[*guard]struct{}               // guarded by mu
	proxies map[string]supervised             // those that the agent runs, by name; guarded by mu
	dirs    map[string][]tlsfiles.Dir         // the folders of files that these may have; guarded by mu
}

// Config is what a relay is made of. Every field is needed.
type Config struct {
	// Conn is the connection to the servers, over which each subscription has a stream.
	Conn grpc.ClientConnInterface
	// Connected is whether it stands.
	Connected *watched.Value[bool]
	// State is what the servers told the agent for itself; nil before the first.
	State *watched.Value[*resources.Snapshot]
	// Trust is by which roots SVIDs are accepted.
	Trust    *watched.Value[*svids.Trust]
	SVIDs    SVIDs
	Policies Policies
	// Given is what no proxy says of itself: who decides for it, and where it may log.
	Given proxy.Shape
	// AppMesh is where an Envoy is that App Mesh's own agent started.
	AppMesh proxy.Where
	// Drain is as ads.Server.Drain.
	Drain time.Duration
	// CheckApp looks at the folder of an application on sockets.
	CheckApp func(proxy.Shape) error
	// Stay is told of a peer that is given a view.
	Stay func(*attestation.Peer)
	// Refused counts peers that are given nothing.
	Refused prometheus.Counter
	Log     *slog.Logger
}

// viewKey names a view: replicas of one virtual node with one shape, bound by the
// same binding, share it, unless the agent runs them.
type viewKey struct {
	sub subscriptionKey
	as  svids.Name
	// own is the name of the proxy of the configuration that it is for, "" for all others:
	// what files a proxy may have is the host's word about that one.
	own string
}

// New returns one that relays once it runs.
func New(c Config) *Relay {
	return &Relay{
		config: c, proxies: map[string]supervised{}, spawn: make(chan func(context.Context)), ended: make(chan struct{}),
		tenants: tenants{users: map[uint32]bool{}, said: map[string]bool{}},
		subs:    map[subscriptionKey]*subscription{}, views: map[viewKey]*View{}, streams: map[*guard]struct{}{},
	}
}

// supervised is a proxy that the agent runs: what it is comes from the configuration,
// not from what it says.
type supervised struct {
	sub subscriptionKey
	by  *Supervised // what it runs by, or ran by last; nil before
	// refused is why the process itself was given nothing the last time that it asked;
	// "" where it was given something.
	refused string
}

// AllowFiles sets the folders from which each proxy of the configuration, by its name, may
// have certificates, keys and authorities. No other proxy gets any.
func (r *Relay) AllowFiles(dirs map[string][]tlsfiles.Dir) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirs = dirs
}

func (r *Relay) filesOf(own string) []tlsfiles.Dir {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own == "" {
		return nil
	}
	return r.dirs[own]
}

// Configure implements envoy.Views. A proxy that becomes another while no server is there
// goes on by what it has: nobody would give it anything else.
func (r *Relay) Configure(name string, ref proxy.Ref, shape proxy.Shape) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := subscriptionKey{ref, shape}
	p, ok := r.proxies[name]
	if ok && (p.sub == key || p.by != nil && p.by.view.published.Load() != nil && !r.config.Connected.Load()) {
		return
	}
	r.proxies[name] = supervised{sub: key}
}

// Unconfigure implements envoy.Views.
func (r *Relay) Unconfigure(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.proxies, name)
}

func (r *Relay) configured(name string) (supervised, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.proxies[name]
	return p, ok
}

// Own is what a proxy of the configuration runs for.
func (r *Relay) Own(name string) (proxy.Ref, bool) {
	p, ok := r.configured(name)
	return p.sub.ref, ok
}

// ViewOf is the view that a supervised proxy was given last, nil where it has none.
func (r *Relay) ViewOf(name string) *View {
	r.mu.Lock()
	defer r.mu.Unlock()
	if by := r.proxies[name].by; by != nil {
		return by.view
	}
	return nil
}

// Run owns the goroutines of all subscriptions and views until ctx ends. It is called
// once.
func (r *Relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(r.ended) // first: what is waited for may want mu, and who spawns holds it
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

func (r *Relay) watchState(ctx context.Context) {
	for {
		s, changed := r.config.State.Get()
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
func (r *Relay) review(s *resources.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.config.State.Load(); now != nil {
		s = now // a view may have been begun by it meanwhile, which an older one does not grant
	}
	for g := range r.streams {
		if w, ok := g.boundTo(); ok && !s.Grants(w) {
			g.leave(r.config.Drain + takeBackWithin)
		}
	}
	maps.DeleteFunc(r.views, func(k viewKey, v *View) bool {
		if s.Grants(k.as) {
			return false
		}
		close(v.gone)
		r.endSupervised(v)
		return true
	})
}

// sweepIdle ends the views that no proxy has used for long.
func (r *Relay) sweepIdle(ctx context.Context) {
	for watched.Sleep(ctx, viewIdle/2) {
		// In an outage a proxy that comes back must find what was there.
		if r.config.Connected.Load() {
			r.sweep(time.Now())
		}
	}
}

// sweep ends views that were idle until now, and the subscriptions that have no view.
func (r *Relay) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.ownSubscriptions()
	used := maps.Clone(own)
	maps.DeleteFunc(r.views, func(k viewKey, v *View) bool {
		if v.view.Streams() > 0 {
			v.used = now
		}
		if own[k.sub] || now.Sub(v.used) < viewIdle { // not used: another's view of the subscription may be young
			used[k.sub] = true
			return false
		}
		close(v.gone)
		return true
	})
	maps.DeleteFunc(r.subs, func(k subscriptionKey, l *subscription) bool {
		if used[k] {
			return false
		}
		close(l.gone)
		return true
	})
}

// View implements ads.Views: who the peer is decides, and the node id selects
// among what it is bound to.
func (r *Relay) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	g, ok := ctx.Value(guardKey{}).(*guard)
	if !ok {
		return nil, status.Error(codes.Internal, "internal error: a stream without its guard")
	}
	ref, err := proxy.ParseRef(node.GetId())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s := r.config.State.Load()
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
		r.config.Log.WarnContext(ctx, "the outbound listener is one that other hosts reach: who calls from there cannot be seen, and is let out only by applications: [anyone] of the Binding",
			slog.String("node", node.GetId()), slog.String("address", sh.Egress.String()))
	}
	own := r.ownName(has)
	v, err := r.view(ctx, viewKey{subscriptionKey{ref, sh}, w, own})
	if err != nil {
		return nil, err
	}
	if own == "" {
		g.follow(ctx, v)
	}
	if err := r.follow(resources.ProxyName(has), v); err != nil {
		return nil, err
	}
	g.bind(w, subscriptionKey{ref, sh})
	if sh.ServiceAddresses {
		r.tenants.add(g.peer.UID())
	}
	r.noteRefused(resources.ProxyName(has), "")
	r.config.Stay(g.peer)
	return v.view, nil
}

// ownName is the name of the proxy of the configuration that a process is, "" for another.
func (r *Relay) ownName(has identity.Selectors) string {
	name := resources.ProxyName(has)
	if _, ok := r.configured(name); !ok {
		return ""
	}
	return name
}

// shapeFor is the configuration's for a proxy that the agent started, else what
// the node says of itself.
func (r *Relay) shapeFor(node *corev3.Node, has identity.Selectors, ref proxy.Ref) (proxy.Shape, error) {
	name := resources.ProxyName(has)
	if p, ok := r.configured(name); ok {
		if p.sub.ref != ref {
			return proxy.Shape{}, fmt.Errorf("proxy %s is configured for %s", name, p.sub.ref)
		}
		return p.sub.shape, nil
	}
	sh, err := foreignShape(node, ref, r.config.Given, r.config.AppMesh)
	if err != nil {
		return proxy.Shape{}, err
	}
	if err := r.config.CheckApp(sh); err != nil {
		r.config.Refused.Inc()
		r.config.Log.Warn("xds.sock: proxy refused", slog.String("node", node.GetId()), slog.Any("selectors", has.Strings()), slog.Any("err", err))
		return proxy.Shape{}, errAppFolder
	}
	return sh, nil
}

// view returns the view of key, beginning it where it is new.
func (r *Relay) view(ctx context.Context, key viewKey) (*View, error) {
	r.config.SVIDs.Need(key.as)
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.views[key]; v != nil {
		v.used = time.Now()
		return v, nil
	}
	l := r.subs[key.sub]
	if l == nil {
		if err := r.hasSpace(key.sub); err != nil {
			return nil, err
		}
		l = &subscription{key: key.sub, pool: &r.pool, log: r.config.Log, policies: r.config.Policies, gone: make(chan struct{}), served: func() { r.served.Update(func(n int) int { return n + 1 }) }}
		if err := r.run(ctx, func(ctx context.Context) { l.Run(ctx, r.config.Conn) }); err != nil {
			return nil, err
		}
		r.subs[key.sub] = l
	}
	v := newView(l, key.as, r.config.SVIDs, r.config.Trust)
	v.files = tlsfiles.New(func() []tlsfiles.Dir { return r.filesOf(key.own) }, r.config.Log.With(slog.String("node", l.nodeID()), slog.String("proxy", key.own)))
	v.addresses, v.drain = &r.addresses, r.config.Drain+takeBackWithin
	v.changed = func() { r.changed.Update(func(n int) int { return n + 1 }) }
	if err := r.run(ctx, v.Run); err != nil {
		return nil, err
	}
	r.views[key] = v
	return v, nil
}

// hasSpace returns an error where there is none for a subscription. Those of the proxies of the
// configuration have theirs: no other proxy, whatever it declares, takes it. The
// caller holds mu.
func (r *Relay) hasSpace(k subscriptionKey) error {
	own := r.ownSubscriptions()
	if own[k] {
		return nil
	}
	all, same := 0, 0
	for other := range r.subs {
		if own[other] {
			continue
		}
		if all++; other.ref == k.ref {
			same++
		}
	}
	if all >= maxSubscriptions || same >= maxShapes {
		return status.Errorf(codes.ResourceExhausted, "%d views are relayed already to proxies that the agent did not start, %d of this virtual node", all, same)
	}
	return nil
}

// ownSubscriptions are those of the proxies of the configuration. The caller holds mu.
func (r *Relay) ownSubscriptions() map[subscriptionKey]bool {
	own := map[subscriptionKey]bool{}
	for _, p := range r.proxies {
		own[p.sub] = true
	}
	return own
}

// run gives f to Run.
func (r *Relay) run(ctx context.Context, f func(context.Context)) error {
	select {
	case r.spawn <- f:
		return nil
	case <-r.ended:
		return status.Error(codes.Unavailable, "the agent is stopping")
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// given reports whether a selector is of what the agent itself gives a proxy: its name,
// by the pidfd that the agent will hold, and its user. What its program is, runs or lies
// in is attested once there is a process, and nobody can say it before.
func given(s identity.Selector) bool {
	key, _, _ := strings.Cut(s.Value, ":")
	return slices.Contains([]string{"unix:uid", "unix:gid", "signet:proxy"}, s.Type+":"+key)
}

// ForProxy is what a proxy that the agent supervises runs by, before it does: by a
// binding that what it is given fits. When it runs it is attested as everyone is, and
// what is returned here goes with the binding that is found then.
func (r *Relay) ForProxy(ctx context.Context, name string, has identity.Selectors) (*Supervised, error) {
	p, ok := r.configured(name)
	if !ok {
		return nil, fmt.Errorf("internal error: proxy %s is not configured", name)
	}
	r.noteRefused(name, "") // of the process before
	ref := p.sub.ref
	s := r.config.State.Load()
	if s == nil {
		return nil, resources.ErrNone
	}
	var candidates []identity.Binding
	for _, b := range s.Bindings {
		if resources.RefOf(b) != ref {
			continue
		}
		b.Selectors = slices.DeleteFunc(slices.Clone(b.Selectors), func(sel identity.Selector) bool { return !given(sel) })
		if len(b.Selectors) == 0 {
			b.Selectors = has // it asks only for what shows once there is a process
		}
		candidates = append(candidates, b)
	}
	b, ok, err := identity.MatchBindings(candidates, has)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no binding lets proxy %s (%s) be %s%s", name, has, ref, lacking(candidates, has))
	}
	v, err := r.view(ctx, viewKey{p.sub, svids.Name{Entry: b.Name, ID: s.IDs[b.Name]}, name})
	if err != nil {
		return nil, err
	}
	return r.supervise(name, v), nil
}

// StateChanged returns a channel that is closed when ForProxy may have another answer.
func (r *Relay) StateChanged() <-chan struct{} {
	_, changed := r.config.State.Get()
	return changed
}

// Changes returns a channel that is closed when a report may have become another one.
func (r *Relay) Changes() <-chan struct{} {
	_, changed := r.changed.Get()
	return changed
}

// Statuses is what proxies have of each view that one follows, in order.
func (r *Relay) Statuses() []*api.ViewStatus {
	r.mu.Lock()
	views := inOrder(r.views)
	r.mu.Unlock()
	var list []*api.ViewStatus
	for _, v := range views {
		if st := v.status(); st != nil {
			list = append(list, st)
		}
	}
	return list
}

// inOrder has those of proxies that the agent runs first: of the others there may be more
// than a server is told of.
func inOrder(views map[viewKey]*View) []*View {
	keys := slices.SortedFunc(maps.Keys(views), func(a, b viewKey) int {
		return cmp.Or(cmp.Compare(b.own, a.own), a.sub.ref.Compare(b.sub.ref), cmp.Compare(a.as.Entry, b.as.Entry), cmp.Compare(a.sub.shape.Bind, b.sub.shape.Bind))
	})
	list := make([]*View, len(keys))
	for i, k := range keys {
		list[i] = views[k]
	}
	return list
}

// Event notes what a proxy did with its resources.
func (r *Relay) Event(e ads.Event) {
	switch e.Kind {
	case ads.Rejected:
		r.config.Log.Warn("resource rejected by a proxy", slog.String("node", e.View), slog.String("type", e.Type), slog.String("name", e.Name), slog.String("version", e.Version), slog.String("err", e.Message))
		r.changed.Update(func(n int) int { return n + 1 })
	case ads.Stuck:
		r.config.Log.Warn("proxy did not acknowledge in time", slog.String("node", e.View), slog.String("type", e.Type), slog.String("err", e.Message))
	case ads.Answered:
		r.changed.Update(func(n int) int { return n + 1 })
	case ads.Opened, ads.Closed:
		r.config.Log.Debug("proxy stream "+e.Kind.String(), slog.String("node", e.View), slog.String("stream", e.Stream), slog.String("err", e.Message))
		r.changed.Update(func(n int) int { return n + 1 })
	}
}

// FileProblems is how many problems there are with files that proxies are to have.
func (r *Relay) FileProblems() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, v := range r.views {
		n += len(v.FileProblems())
	}
	return n
}

// Open is the number of streams that proxies have.
func (r *Relay) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}
