package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/xds"
)

// viewIdle is how long a view that nobody follows is kept: an agent that
// reconnects resumes from the same bytes.
const viewIdle = 2 * time.Minute

// Types of which a view's closing resource always tells the set version, so that
// "none left" is a version too.
var (
	agentTypes = []string{ads.EntryType, ads.BundleType, ads.PolicyType, ads.JWTIssuerType, ads.BanType}
	nodeTypes  = []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType}
)

// nodeKey names the view of one virtual node in one shape; replicas share it.
type nodeKey struct {
	mesh, node string
	shape      xds.Shape // without the proxy's name, which is in no resource
}

// keptView is a view and when it was last seen to have a stream.
type keptView struct {
	view *ads.View
	used time.Time
}

// views are what agents are told: one view for each agent, one for each virtual
// node and shape. All are rebuilt when anything changes; since versions are hashes
// of content, one that comes out equal is not published.
type views struct {
	td        spiffeid.TrustDomain
	lifetime  time.Duration // of SVIDs
	model     func() *model
	roots     func() rootSet
	roster    *roster
	endpoints *endpoints
	policies  *policies
	issuers   *issuers
	access    *access
	log       *slog.Logger
	metrics   *metrics
	signal    chan struct{} // wakes run

	mu     sync.Mutex
	agents map[string]*keptView
	nodes  map[nodeKey]*keptView
}

// View finds the view of a stream (ads.Views). The peer's certificate says which
// agent asks; the node id selects among what that agent may host and grants nothing.
func (v *views) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, agentError(err)
	}
	view, err := v.find(c, node)
	if err != nil {
		v.log.WarnContext(ctx, "view refused", slog.String("agent", c.agent.ID),
			slog.String("node", plainText(node.GetId())), slog.Any("err", err))
	}
	return view, agentError(err)
}

func (v *views) find(c *caller, node *corev3.Node) (*ads.View, error) {
	if node.GetId() == c.id.String() {
		return v.agentView(c)
	}
	mesh, name, err := xds.ParseNodeID(node.GetId())
	if err != nil {
		return nil, errDenied
	}
	// Before the question whether it may: a binding that goes right after it is
	// then missed by nobody, since access reviews what a stream was given.
	c.node.Store(&nodeRef{mesh, name})
	if !v.model().bound(c.agent.Group, mesh, name) {
		return nil, errDenied
	}
	shape, err := xds.ShapeFromNode(node)
	if err != nil {
		return nil, reason(errInvalid, "node %s: %v", xds.NodeID(mesh, name), err)
	}
	shape.Proxy = ""
	return v.nodeView(nodeKey{mesh, name, shape})
}

func (v *views) agentView(c *caller) (*ads.View, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := v.agents[c.agent.ID]; k != nil {
		k.used = time.Now()
		return k.view, nil
	}
	set, err := v.buildAgent(v.inputs(), c.agent.ID, c.agent.Group)
	if err != nil {
		return nil, err
	}
	k := &keptView{ads.NewView(c.id.String(), ads.Relay), time.Now()}
	k.view.Publish(set)
	v.agents[c.agent.ID] = k
	return k.view, nil
}

func (v *views) nodeView(key nodeKey) (*ads.View, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := v.nodes[key]; k != nil {
		k.used = time.Now()
		return k.view, nil
	}
	set, err := v.buildNode(v.inputs(), key)
	if err != nil {
		return nil, err
	}
	k := &keptView{ads.NewView(xds.NodeID(key.mesh, key.node), ads.Relay), time.Now()}
	k.view.Publish(set)
	v.nodes[key] = k
	return k.view, nil
}

// changed asks for a rebuild. It never waits.
func (v *views) changed() { wake(v.signal) }

// run rebuilds when something changed, and lets go of what nobody follows.
func (v *views) run(ctx context.Context) error {
	idle := time.NewTicker(viewIdle / 2)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.signal:
			v.rebuild(ctx)
		case <-idle.C:
			v.release()
		}
	}
}

// inputs is one consistent look at everything views are made of.
type inputs struct {
	model     *model
	roots     rootSet
	policy    *policyState
	issuers   []*api.JWTIssuer
	endpoints func(mesh, node string, port uint32) []xds.Endpoint
}

func (v *views) inputs() inputs {
	m := v.model()
	return inputs{
		model: m, roots: v.roots(), policy: v.policies.state.Load(),
		issuers: v.issuers.resources(m), endpoints: v.endpoints.snapshot(),
	}
}

// rebuild publishes what came out different. Agents' own views go first: a
// policy revision should be there before a route speaks of it.
func (v *views) rebuild(ctx context.Context) {
	start := time.Now()
	in := v.inputs()
	v.access.review(in.model.bound)
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, k := range v.agents {
		agent, err := v.roster.standing(id)
		if err != nil {
			delete(v.agents, id)
			continue
		}
		set, err := v.buildAgent(in, id, agent.Group)
		v.publish(ctx, k.view, set, err)
	}
	for key, k := range v.nodes {
		if in.model.graph.Node(key.mesh, key.node) == nil {
			delete(v.nodes, key) // its streams were ended by review
			continue
		}
		set, err := v.buildNode(in, key)
		v.publish(ctx, k.view, set, err)
	}
	v.metrics.rebuild.Observe(time.Since(start).Seconds())
}

// publish keeps the last good set of a view that cannot be built.
func (v *views) publish(ctx context.Context, view *ads.View, set *ads.Set, err error) {
	if err != nil {
		v.metrics.buildErrors.Inc()
		v.log.ErrorContext(ctx, "view not built; the last good one stays", slog.String("node", view.Name()), slog.Any("err", err))
		return
	}
	if old := view.Set(); old == nil || old.Version() != set.Version() {
		view.Publish(set)
		v.metrics.published.Inc()
	}
}

// release forgets views without streams.
func (v *views) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	idle := func(k *keptView) bool {
		if k.view.Streams() > 0 {
			k.used = time.Now()
		}
		return time.Since(k.used) > viewIdle
	}
	for id, k := range v.agents {
		if idle(k) {
			delete(v.agents, id)
		}
	}
	for key, k := range v.nodes {
		if idle(k) {
			delete(v.nodes, key)
		}
	}
}

// count is the number of views with a stream, by kind.
func (v *views) count() (agents, nodes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range v.agents {
		agents += min(1, k.view.Streams())
	}
	for _, k := range v.nodes {
		nodes += min(1, k.view.Streams())
	}
	return agents, nodes
}

// buildNode makes the view of one virtual node.
func (v *views) buildNode(in inputs, key nodeKey) (*ads.Set, error) {
	set, err := xds.Build(xds.Input{
		Graph: in.model.graph, TrustDomain: v.td, Endpoints: in.endpoints, Managed: in.model.managed,
		PolicyRevision: in.policy.stamp, SVIDLifetime: v.lifetime,
	}, key.mesh, key.node, key.shape)
	if err != nil {
		return nil, fmt.Errorf("%w: build %s: %w", errUnavailable, xds.NodeID(key.mesh, key.node), err)
	}
	return closeView(set, xds.NodeID(key.mesh, key.node), in.policy.stamp, nodeTypes)
}

// buildAgent makes an agent's own view: what its group may be, and what it
// authorizes by.
func (v *views) buildAgent(in inputs, id, group string) (*ads.Set, error) {
	self, err := identity.ForAgent(v.td, id)
	if err != nil {
		return nil, err
	}
	var rs []*ads.Resource
	add := func(typeURL, name string, m proto.Message) {
		var r *ads.Resource
		if err == nil {
			if r, err = ads.NewResource(typeURL, name, m); err == nil {
				rs = append(rs, r)
			}
		}
	}
	grants, err := grantsOf(in.model, group)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		add(ads.EntryType, g.name, g.message())
	}
	add(ads.BundleType, v.td.IDString(), in.roots.bundle())
	for _, rev := range in.policy.keep {
		add(ads.PolicyType, rev.GetId(), rev)
	}
	for _, is := range in.issuers {
		add(ads.JWTIssuerType, is.GetName(), is)
	}
	for _, a := range v.roster.all() {
		if banned, idErr := identity.ForAgent(v.td, a.ID); a.Banned && idErr == nil {
			add(ads.BanType, banned.String(), &api.Ban{SpiffeId: banned.String()})
		}
	}
	if err != nil {
		return nil, err
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		return nil, err
	}
	return closeView(set, self.String(), in.policy.current.GetId(), agentTypes)
}

// closeView adds the resource that is sent last and tells what is complete (R6).
func closeView(set *ads.Set, name, revision string, types []string) (*ads.Set, error) {
	versions := map[string]string{}
	for _, t := range append(set.Types(), types...) {
		versions[t] = set.TypeVersion(t)
	}
	view, err := ads.NewResource(ads.ViewType, name, &api.View{Name: name, SetVersions: versions, PolicyRevision: revision})
	if err != nil {
		return nil, err
	}
	last, err := ads.NewSet(view)
	if err != nil {
		return nil, err
	}
	return set.Merge(last)
}

// grant is an identity that workloads on hosts of a group may hold: from an Entry,
// or from a Binding for a virtual node's proxy.
type grant struct {
	// name is that of the Entry resource: an Entry's own, or "binding/<name>", which
	// no Entry can have.
	name string
	// entry has the identity, the selectors and the lifetime.
	entry identity.Entry
	node  *api.VirtualNodeRef
}

func (g grant) message() *api.Entry {
	m := &api.Entry{
		Name: g.name, SpiffeId: g.entry.ID.String(), Selectors: g.entry.Selectors.Strings(), VirtualNode: g.node,
	}
	if g.entry.TTL > 0 {
		m.Ttl = durationpb.New(g.entry.TTL)
	}
	return m
}

// grantsOf lists what hangs on a group.
func grantsOf(m *model, group string) ([]grant, error) {
	var list []grant
	for _, e := range m.entries {
		if e.Group == group {
			list = append(list, grant{name: e.Name, entry: e})
		}
	}
	for _, b := range m.bindings {
		if b.Group != group {
			continue
		}
		id, err := b.ID(m.td)
		if err != nil {
			return nil, fmt.Errorf("binding %s: %w", b.Name, err)
		}
		list = append(list, grant{
			name:  "binding/" + b.Name,
			entry: identity.Entry{Name: b.Name, Group: b.Group, ID: id, Selectors: b.Selectors},
			node:  &api.VirtualNodeRef{Mesh: b.Mesh, Name: b.VirtualNode},
		})
	}
	return list, nil
}
