package relay

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/agent/tlsfiles"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/sds"
)

// SVIDs are the SVIDs of the host.
type SVIDs interface {
	// Need asks for SVIDs to be kept.
	Need(names ...svids.Name)
	// Watch returns those that there are, by entry, and a channel that is closed when
	// there are others. Nobody changes the map.
	Watch() (map[string]*svids.SVID, <-chan struct{})
	// Get returns the SVID of an entry, nil where there is none that is good.
	Get(entry string) *svids.SVID
}

// View is what the proxies of one binding and shape are sent: the routing
// that the server made, and the secrets it refers to: their own two, and what the host
// lets a proxy of the configuration have of files. There is no other: a name that is not
// theirs is answered like one that does not exist.
type View struct {
	sub     *subscription
	as      svids.Name
	svids   SVIDs
	trusted *watched.Value[*svids.Trust]
	files   *tlsfiles.Files
	view    *ads.View
	// gone is closed when the binding is taken away, or nobody used it for long.
	gone chan struct{}
	used time.Time // last; guarded by Relay.mu
	// portsOf and portsMemo remember ports; guarded by Relay.mu.
	portsOf   *ads.Set
	portsMemo []uint32
	// published is nil until the first complete set.
	published watched.Value[*ads.Set]

	// addresses is where other proxies listen; drain is how long a listener that is gone
	// may; changed is called when what is left out has become something else.
	addresses *addresses
	drain     time.Duration
	changed   func()
	presence  presence // of foreign proxies

	claims   sync.Mutex // guards the rest down to left, and is held while a set is published
	full     *ads.Set   // what there is
	made     string     // the server's version of what full was made of
	answered string     // that of the last that all proxies have answered
	has      *ads.Set   // the set of the server that was answered last
	claimant string     // the proxy that runs by this view or is about to; "" for none
	ran      bool       // one did
	left     []LeftOut  // of full

	// secret is made of svid, bundle of trust. Owned by Run.
	svid   *svids.SVID
	secret *ads.Resource
	trust  *svids.Trust
	bundle *ads.Resource
}

func newView(l *subscription, w svids.Name, k SVIDs, t *watched.Value[*svids.Trust]) *View {
	return &View{
		sub: l, as: w, svids: k, trusted: t, gone: make(chan struct{}), used: time.Now(),
		view: ads.NewView(l.nodeID(), ads.Proxy), files: tlsfiles.New(func() []tlsfiles.Dir { return nil }, l.log), changed: func() {},
	}
}

// filesWithin is how long a view waits for files to be tried: what they need serves
// nobody meanwhile, and a file system that hangs must not hold the rest.
const filesWithin = 2 * time.Second

// Run publishes whenever routing, SVID or bundle change, from the moment when all
// three are there.
func (v *View) Run(ctx context.Context) {
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() { v.files.Run(ctx) })
	var last *routing
	var since time.Time // that last is there
	var listed *tlsfiles.State
	for {
		routing, routingChanged := v.sub.released.Get()
		if routing != nil {
			v.files.Want(routing.files)
		}
		if routing != last {
			last, since = routing, time.Now()
		}
		files, filesChanged := v.files.Get()
		if files != listed {
			listed = files
			v.changed()
		}
		tried := routing == nil || files.Tried(routing.files) || time.Since(since) >= filesWithin
		held, heldChanged := v.svids.Watch()
		trust, trustChanged := v.trusted.Get()
		if s := held[v.as.Entry]; routing != nil && tried && s != nil && s.ID == v.as.ID {
			if err := v.publish(routing, s, trust, files); err != nil {
				v.sub.log.ErrorContext(ctx, "view not published", slog.String("node", v.view.Name()), slog.String("spiffe_id", v.as.ID.String()), slog.Any("err", err))
			}
		}
		again := time.NewTimer(time.Second)
		if tried && len(v.LeftOut()) == 0 {
			again.Stop()
		}
		select {
		case <-again.C:
		case <-routingChanged:
		case <-heldChanged:
		case <-trustChanged:
		case <-filesChanged:
		case <-v.gone:
			again.Stop()
			if err := v.takeBack(); err != nil {
				v.sub.log.ErrorContext(ctx, "view not taken back", slog.String("node", v.view.Name()), slog.Any("err", err))
			}
			return
		case <-ctx.Done():
			again.Stop()
			return
		}
		again.Stop()
	}
}

func (v *View) publish(r *routing, s *svids.SVID, t *svids.Trust, files *tlsfiles.State) error {
	if v.svid != s {
		secret, err := sds.SVIDSecret(s.ID, s.Chain, s.Key)
		if err != nil {
			return err
		}
		v.svid, v.secret = s, secret
	}
	if v.trust != t {
		bundle, err := sds.BundleSecret(t.Roots.TrustDomain, t.DER)
		if err != nil {
			return err
		}
		v.trust, v.bundle = t, bundle
	}
	own := []*ads.Resource{v.secret, v.bundle}
	if files != nil {
		for _, f := range files.Secrets {
			if slices.Contains(r.files, f.Name) {
				own = append(own, f)
			}
		}
	}
	secrets, err := ads.NewSet(own...)
	if err != nil {
		return err
	}
	// The server has no secrets to give: what it might send as one is left out.
	set, err := r.set.Without(ads.SecretType).Merge(secrets)
	if err != nil {
		return err
	}
	return v.put(set, r.version)
}

// put publishes a set, made of what the server gave that version.
func (v *View) put(set *ads.Set, made string) error {
	v.claims.Lock()
	defer v.claims.Unlock()
	v.full = set
	if v.made != made {
		v.made = made
		defer v.changed() // what is answered is another version, also where nothing is sent
	}
	return v.putClaimed()
}

// putClaimed publishes what there is, less what the proxy may not listen on. The
// caller holds claims.
func (v *View) putClaimed() error {
	if v.full == nil {
		return nil
	}
	set, left := v.full, []LeftOut(nil)
	if v.claimant != "" {
		var err error
		if set, left, err = v.addresses.granted(v.claimant, v.sub.key, set, v.drain); err != nil {
			return err
		}
	}
	if !slices.Equal(v.left, left) {
		v.left = left
		v.changed()
	}
	if old := v.published.Load(); old != nil && old.Version() == set.Version() {
		return nil
	}
	v.view.Publish(set)
	v.published.Set(set)
	return nil
}

// claim has the proxy that is to run by this view listen where it says. One that has
// not run yet gets all that it needs or nothing, and waits; one that comes back gets what there is.
func (v *View) claim(proxy string) error {
	v.claims.Lock()
	defer v.claims.Unlock()
	if !v.ran {
		at := needed(v.full, v.sub.key.shape)
		if err := v.addresses.free(proxy, at); err != nil {
			return err
		}
		for _, port := range ingressPorts(v.full) {
			if err := v.addresses.serve(proxy, v.sub.key, port); err != nil {
				v.addresses.serveOnly(proxy, v.sub.key, nil)
				return err
			}
		}
		if err := v.addresses.claim(proxy, at); err != nil {
			v.addresses.serveOnly(proxy, v.sub.key, nil)
			return err
		}
	}
	v.claimant, v.ran = proxy, true
	return v.putClaimed()
}

// take is claim for a proxy that runs already, by another view until now: where it
// listens it goes on to.
func (v *View) take(proxy string) error {
	v.claims.Lock()
	defer v.claims.Unlock()
	v.claimant, v.ran = proxy, true
	return v.putClaimed()
}

// unclaim gives back what the proxy has, which has ended.
func (v *View) unclaim() {
	v.claims.Lock()
	defer v.claims.Unlock()
	v.addresses.release(v.claimant)
	v.leave()
}

// give leaves the proxy, which runs by another view from now on, what it has.
func (v *View) give() {
	v.claims.Lock()
	defer v.claims.Unlock()
	v.leave()
}

// leave forgets the proxy; the caller holds claims.
func (v *View) leave() {
	v.claimant = ""
	if v.left != nil {
		v.left = nil
		v.changed()
	}
}

// LeftOut is a listener that a proxy does not have, and why.
type LeftOut struct{ Listener, Why string }

// LeftOut lists the listeners that the proxy does not have.
func (v *View) LeftOut() []LeftOut {
	v.claims.Lock()
	defer v.claims.Unlock()
	return v.left
}

// FileProblems is what is wrong with the files that the proxies are to have.
func (v *View) FileProblems() []string {
	if s, _ := v.files.Get(); s != nil {
		return s.Problems
	}
	return nil
}

// takeBack leaves the proxies nothing: no listener, no cluster, and another
// certificate, which nobody trusts, in the place of theirs. Envoy would go on with
// one that is merely removed (D13).
func (v *View) takeBack() error {
	if v.published.Load() == nil {
		return nil
	}
	secret, err := sds.UntrustedSecret(v.as.ID.String(), time.Now())
	if err != nil {
		return err
	}
	set, err := ads.NewSet(secret)
	if err != nil {
		return err
	}
	return v.put(set, "")
}

// rememberedPorts is Ports without looking at a set twice; the caller holds Relay.mu.
func (v *View) rememberedPorts() []uint32 {
	if set := v.published.Load(); set != v.portsOf {
		v.portsOf, v.portsMemo = set, ingressPorts(set)
	}
	return v.portsMemo
}

// ingressPrefix begins the names of the listeners that others call.
const ingressPrefix = "lds_ingress_"

// ingressPorts are the ports of the listeners that others call.
func ingressPorts(set *ads.Set) []uint32 {
	var ports []uint32
	for _, r := range set.Type(ads.ListenerType) {
		if !strings.HasPrefix(r.Name, ingressPrefix) {
			continue
		}
		var l listenerv3.Listener
		if proto.Unmarshal(r.Body, &l) == nil {
			ports = append(ports, l.GetAddress().GetSocketAddress().GetPortValue())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Ports are the ports that others call, for reports.
func (v *View) Ports() []uint32 { return ingressPorts(v.published.Load()) }

// Rejected is what proxies refused of the view, for reports.
func (v *View) Rejected() []ads.Rejection { return v.view.Rejected() }

// Synced reports whether the proxies have acknowledged all of the view, and when the last did;
// version is what the view's resources have together.
func (v *View) Synced() (version string, at time.Time, ok bool) {
	at, ok = v.view.Synced()
	return v.view.Set().Version(), at, ok
}

// noteAnswered remembers what the proxies have answered. The caller holds claims.
func (v *View) noteAnswered() {
	if v.view.Answered() {
		v.answered, v.has = v.made, v.full
	}
}

// served are the types of which the server gives resources.
var served = []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType}

// Types is what the proxies are to have of each type, and what they have answered.
func (v *View) Types() []*api.TypeStatus {
	v.claims.Lock()
	defer v.claims.Unlock()
	v.noteAnswered()
	var list []*api.TypeStatus
	for _, t := range served {
		st := &api.TypeStatus{TypeUrl: t, Version: v.full.TypeVersion(t)}
		if v.has != nil {
			st.Acknowledged = v.has.TypeVersion(t)
		}
		list = append(list, st)
	}
	return list
}

// status is what the proxies have of the view, nil while it has none.
func (v *View) status() *api.ViewStatus {
	n := v.view.Streams()
	if n == 0 {
		return nil
	}
	v.claims.Lock()
	v.noteAnswered()
	version := v.answered
	v.claims.Unlock()
	ref := v.sub.key.ref
	st := &api.ViewStatus{
		VirtualNode: &api.VirtualNodeRef{Mesh: ref.Mesh, Name: ref.Name, Gateway: ref.Gateway()}, Version: version,
		EnvoyVersion: v.sub.key.shape.EnvoyVersion,
		Proxies:      int32(n), //nolint:gosec // a count
	}
	for _, j := range v.Rejected() {
		st.Rejected = append(st.Rejected, &api.ResourceStatus{TypeUrl: j.Type, Name: j.Name, Version: j.Version, Message: j.Message})
	}
	return st
}

// BoundAs is by what the proxies are bound.
func (v *View) BoundAs() svids.Name { return v.as }

// Shape is what the proxies are, as the server knows them.
func (v *View) Shape() proxy.Shape { return v.sub.key.shape }
