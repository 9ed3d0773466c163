package server

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/issuers"
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
	node  proxy.Ref
	shape proxy.Shape // without the proxy's name, which is in no resource
}

// keptView is a view and when it was last seen to have a stream.
type keptView struct {
	view *ads.View
	used time.Time
	told told // what an agent's set was made of
}

// views are what agents are told: one view for each agent, one for each virtual
// node and shape. When anything changes, those are rebuilt that it can change;
// since versions are hashes of content, one that comes out equal is not published.
type views struct {
	td       spiffeid.TrustDomain
	lifetime time.Duration // of SVIDs
	// postQuantum reports the meshes that refuse other key exchanges.
	postQuantum func(mesh string) bool
	model       func() *model
	roots       func() rootSet
	roster      *fleet.Roster
	endpoints   *fleet.Endpoints
	policies    *policies
	issuers     *issuers.Keys
	access      *access
	log         *slog.Logger
	metrics     *metrics
	signal      watched.Signal // wakes run

	// mu guards the two maps and what they lead to. It is held from the look at
	// everything that views are made of until what came of it is published.
	mu     sync.Mutex
	agents map[string]*keptView
	nodes  map[nodeKey]*keptView

	// What the views were made of, so that a change costs what it touches.
	shapes  map[proxy.Ref]map[nodeKey]bool // the keys of nodes, by virtual node
	at      nodeInputs                     // of nodes, except of those behind
	behind  map[nodeKey]bool               // those to be made at the next change, whatever it is
	toldAt  agentInputs                    // of agents, if all of them could be made
	toAll   *toAll
	byGroup map[string]toldGroup
}

// keepNode and dropNode are the ways in and out of nodes.
func (v *views) keepNode(key nodeKey, k *keptView) {
	if v.shapes[key.node] == nil {
		v.shapes[key.node] = map[nodeKey]bool{}
	}
	v.nodes[key], v.shapes[key.node][key] = k, true
}

func (v *views) dropNode(key nodeKey) {
	delete(v.nodes, key)
	delete(v.behind, key)
	if delete(v.shapes[key.node], key); len(v.shapes[key.node]) == 0 {
		delete(v.shapes, key.node)
	}
}

// newViews has no views yet, and is woken by changed; the rest is its owner's to set.
func newViews(changed watched.Signal) *views {
	return &views{
		signal: changed, agents: map[string]*keptView{}, nodes: map[nodeKey]*keptView{},
		shapes: map[proxy.Ref]map[nodeKey]bool{}, behind: map[nodeKey]bool{}, byGroup: map[string]toldGroup{},
	}
}

// View finds the view of a stream (ads.Views). The peer's certificate says which
// agent asks; the node id selects among what that agent may host and grants nothing.
func (v *views) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, fault.ToAgent(err)
	}
	view, err := v.find(c, node)
	if err != nil {
		v.log.WarnContext(ctx, "view refused", slog.String("agent", c.agent.ID),
			slog.String("node", plain.Text(node.GetId())), slog.Any("err", err))
	}
	return view, fault.ToAgent(err)
}

func (v *views) find(c *caller, node *corev3.Node) (*ads.View, error) {
	if node.GetId() == c.id.String() {
		dir := proxy.LogDirOfAgent(node.GetMetadata())
		c.logDir.Store(&dir)
		return v.agentView(c)
	}
	ref, err := proxy.ParseRef(node.GetId())
	if err != nil {
		return nil, fault.Denied
	}
	// Before the question whether it may: a binding that goes right after it, or another
	// group of the agent, is then missed by nobody, since access reviews what a stream
	// was given.
	c.node.Store(&ref)
	agent, err := v.access.roster.Standing(c.agent.ID)
	if err != nil {
		return nil, err
	}
	if !v.model().bound(agent.Group, ref) {
		return nil, fault.Denied
	}
	shape, err := proxy.ParseShape(node.GetMetadata(), nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "node %s: %v", ref, err)
	}
	shape.Proxy = ""
	return v.nodeView(nodeKey{ref, shape})
}

func (v *views) agentView(c *caller) (*ads.View, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := v.agents[c.agent.ID]; k != nil {
		k.used = time.Now()
		return k.view, nil
	}
	agent, err := v.roster.Standing(c.agent.ID) // again: it may be in another group since it called
	if err != nil {
		return nil, err
	}
	in := v.inputs()
	all, err := v.buildGroup(in, agent.Group)
	if err != nil {
		return nil, err
	}
	set, err := closeView(all, c.id.String(), in.policy.current.GetId(), agentTypes)
	if err != nil {
		return nil, err
	}
	k := &keptView{view: ads.NewView(c.id.String(), ads.Relay), used: time.Now(), told: in.told(all)}
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
	in := v.inputs().nodeInputs
	set, err := v.translate(in).view(key)
	if err != nil {
		return nil, err
	}
	k := &keptView{view: ads.NewView(key.node.String(), ads.Relay), used: time.Now()}
	k.view.Publish(set)
	v.keepNode(key, k)
	if in != v.at {
		v.behind[key] = true // what changes back until the others are made is no change to them
	}
	return k.view, nil
}

// changed asks for a rebuild. It never waits.
func (v *views) changed() { v.signal.Wake() }

// run rebuilds when something changed, and lets go of what nobody follows.
func (v *views) run(ctx context.Context) error {
	idle := time.NewTicker(viewIdle / 2)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.signal:
			v.rebuild(ctx, nil)
		case <-idle.C:
			v.release()
		}
	}
}

// inputs is one consistent look at everything views are made of.
type inputs struct {
	nodeInputs
	roots   rootSet
	policy  *policyState
	issuers []*api.JWTIssuer
}

func (v *views) inputs() inputs {
	m, policy := v.model(), v.policies.state.Load()
	return inputs{
		nodeInputs: nodeInputs{model: m, endpoints: v.endpoints.Snapshot(), stamp: policy.stamp},
		roots:      v.roots(), policy: policy, issuers: v.issuers.Resources(m.issuers),
	}
}

// rebuild publishes what came out different; tried, if any, is what was built
// before. Agents' own views go first: a policy revision should be there before
// a route speaks of it.
func (v *views) rebuild(ctx context.Context, tried *trial) {
	start := time.Now()
	v.access.follow(v.model())
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.inputs() // not before the lock: nobody publishes an older look after a newer one
	v.rebuildAgents(ctx, in)
	v.rebuildNodes(ctx, in.nodeInputs, tried)
	v.metrics.rebuild.Observe(time.Since(start).Seconds())
}

// rebuildAgents builds what each group is told once, and closes it for each
// agent that was told something else.
func (v *views) rebuildAgents(ctx context.Context, in inputs) {
	now := agentInputs{roster: v.roster.Version(), hanging: in.model.hanging}
	common, err := v.common(in)
	if now.toAll = common; err == nil && now == v.toldAt {
		return
	}
	failed, groups := err != nil, map[string]bool{}
	for id, k := range v.agents {
		agent, err := v.roster.Standing(id)
		if err != nil {
			delete(v.agents, id)
			continue
		}
		groups[agent.Group] = true
		all, err := v.buildGroup(in, agent.Group)
		if err != nil {
			v.publish(ctx, k.view, nil, err)
			failed = true
			continue
		}
		if k.told == in.told(all) {
			continue
		}
		set, err := closeView(all, k.view.Name(), in.policy.current.GetId(), agentTypes)
		if v.publish(ctx, k.view, set, err); err == nil {
			k.told = in.told(all)
		} else {
			failed = true
		}
	}
	maps.DeleteFunc(v.byGroup, func(group string, _ toldGroup) bool { return !groups[group] })
	if v.toldAt = now; failed {
		v.toldAt = agentInputs{}
	}
}

// rebuildNodes builds the views that differ by what has changed since they were
// built. One that fails is built again with the next change.
func (v *views) rebuildNodes(ctx context.Context, in nodeInputs, tried *trial) {
	t := v.translate(in)
	again := maps.Clone(v.behind)
	if changed := in.touched(v.at); changed.everything {
		for key := range v.nodes {
			again[key] = true
		}
	} else {
		for at := range changed.nodes {
			maps.Copy(again, v.shapes[at])
		}
	}
	v.at, v.behind = in, map[nodeKey]bool{}
	for key := range again {
		if in.model.graph.Node(key.node.Mesh, key.node.Name) == nil {
			v.dropNode(key) // its streams were ended by review
			continue
		}
		set, err := tried.set(in, key), error(nil)
		if set == nil {
			set, err = t.view(key)
		}
		if v.publish(ctx, v.nodes[key].view, set, err); err != nil {
			v.behind[key] = true
		}
	}
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
			v.dropNode(key)
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

// open lists the outbound listeners that other hosts reach, of proxies that are
// being served now.
func (v *views) open() []nodeKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []nodeKey
	for key, k := range v.nodes {
		if key.shape.EgressOpen && k.view.Streams() > 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

// unlogged lists the proxies that are being served now and whose host does not
// take the access log of their virtual node.
func (v *views) unlogged() []nodeKey {
	graph := v.model().graph
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []nodeKey
	for key, k := range v.nodes {
		if n := graph.Node(key.node.Mesh, key.node.Name); n != nil && n.AccessLog != "" && !key.shape.Logs(n.AccessLog) && k.view.Streams() > 0 {
			keys = append(keys, key)
		}
	}
	return keys
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
