package views

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/lanes"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/departed"
	"signet.example/server/fault"
	"signet.example/server/refused"
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

// Key names the view of one virtual node in one shape; replicas share it.
type Key struct {
	Node  proxy.Ref
	Shape proxy.Shape // without the proxy's name, which is in no resource
}

// keptView is a view and when it was last seen to have a stream.
type keptView struct {
	view *ads.View
	used time.Time
	made madeOf // what an agent's set was made of
	// newest is the version of what a virtual node's was made last, given those that it had, oldest first.
	newest string
	given  []version
	// withheld is what a virtual node's lacks of what was made, since proxies refused it.
	withheld []refused.Resource
	// keeps: it has assignments in the place of that, which the model has not any more.
	keeps bool
	// good is the last set of which some host's proxies answered everything, with what they keep in
	// the place of what they refused.
	good *ads.Set
	// maker is the agent that first asked for a virtual node's, bytes what that took then.
	maker string
	bytes int
}

// made is what one agent had made of a virtual node: how many views, and what all of them
// and the largest take, in bytes.
type made struct{ views, bytes, largest int }

// Config is how views are made.
type Config struct {
	TrustDomain  spiffeid.TrustDomain
	SVIDLifetime time.Duration
	PostQuantum  func(mesh string) bool // reports the meshes that refuse other key exchanges
	Metrics      Metrics
	Log          *slog.Logger
	// Memory is the file in which it is remembered what proxies refused.
	Memory string
	// Refused is told of resources that a proxy refused, one of so many; it may wait.
	Refused func(ctx context.Context, one refused.Refusal, of int)
}

// Metrics are counted in.
type Metrics struct {
	Published, BuildErrors prometheus.Counter
	Rebuild                prometheus.Histogram // seconds
}

// Views are what agents are told: one view for each agent, one for each virtual
// node and shape. When anything changes, those are rebuilt that it can change;
// since versions are hashes of content, one that comes out equal is not published.
type Views struct {
	cfg    Config
	source Source
	access Access
	signal watched.Signal // wakes Run
	pool   ads.Pool       // what views of nodes have in common
	memory xds.Memory     // what services came to when they were translated the last time
	past   xds.Past       // sections of the views of nodes, as they were made the last time

	asking lanes.Turns // who may ask for mu: streams, one of all and one of each agent at a time

	// mu guards the two maps and what they lead to. It is held from the look at
	// everything that views are made of until what came of it is published.
	mu     sync.Mutex
	agents map[string]*keptView
	nodes  map[Key]*keptView

	// What the views were made of, so that a change costs what it touches.
	shapes  map[proxy.Ref]map[Key]bool    // the keys of nodes, by virtual node
	byMaker map[string]map[proxy.Ref]made // what there is of views of nodes, by the agent that asked first and virtual node
	at      nodeInputs                    // of nodes, except of those behind
	behind  map[Key]bool                  // those to be made at the next change, whatever it is
	madeAt  agentInputs                   // of agents, if all of them could be made
	toAll   *toAll
	byGroup map[string]groupSet

	seq  uint64           // counts what views of nodes are given
	left *departed.Places // the endpoints that callers were sent to, and are not any more

	heard lanes.News[[]Following] // what agents that are connected here say of the views that they follow

	rollouts map[proxy.Ref]*rollout // changes on their way
	refused  refused.All            // what proxies refused
	mute     map[string]bool        // agents that did not answer first in time
	last     map[Key]refused.Had    // what views had in the last run, of those that lacked something
	unsaved  bool                   // refused is not what the file has
	keeper   refused.Keeper         // Run's alone
}

// keepNode and dropNode are the ways in and out of nodes.
func (v *Views) keepNode(key Key, k *keptView) {
	if v.shapes[key.Node] == nil {
		v.shapes[key.Node] = map[Key]bool{}
	}
	v.nodes[key], v.shapes[key.Node][key] = k, true
	if v.byMaker[k.maker] == nil {
		v.byMaker[k.maker] = map[proxy.Ref]made{}
	}
	of := v.byMaker[k.maker][key.Node]
	v.byMaker[k.maker][key.Node] = made{of.views + 1, of.bytes + k.bytes, max(of.largest, k.bytes)}
}

func (v *Views) dropNode(key Key) {
	if k := v.nodes[key]; k != nil {
		nodes := v.byMaker[k.maker]
		of := nodes[key.Node]
		nodes[key.Node] = made{of.views - 1, of.bytes - k.bytes, of.largest}
		if of.views == 1 {
			delete(nodes, key.Node)
		}
		if len(nodes) == 0 {
			delete(v.byMaker, k.maker)
		}
	}
	if r := v.rollouts[key.Node]; r != nil && r.key == key {
		v.end(key.Node, r)
		for other := range v.shapes[key.Node] {
			v.behind[other] = true
		}
	}
	delete(v.nodes, key)
	delete(v.behind, key)
	if delete(v.shapes[key.Node], key); len(v.shapes[key.Node]) == 0 {
		delete(v.shapes, key.Node)
	}
}

// New has no views yet, and makes them again when changed is woken.
func New(cfg Config, source Source, access Access, changed watched.Signal) *Views {
	return &Views{
		cfg: cfg, source: source, access: access, signal: changed,
		agents: map[string]*keptView{}, nodes: map[Key]*keptView{},
		shapes: map[proxy.Ref]map[Key]bool{}, byMaker: map[string]map[proxy.Ref]made{}, behind: map[Key]bool{}, byGroup: map[string]groupSet{},
		left:     departed.New(),
		rollouts: map[proxy.Ref]*rollout{}, refused: refused.All{}, last: map[Key]refused.Had{}, mute: map[string]bool{},
	}
}

// View finds the view of a stream (ads.Views). The peer's certificate says which
// agent asks; the node id selects among what that agent may host and grants nothing.
func (v *Views) View(ctx context.Context, node *corev3.Node) (*ads.View, error) {
	f, err := v.access.Follower(ctx)
	if err != nil {
		return nil, fault.ToAgent(err)
	}
	view, err := v.find(ctx, f, node)
	if err != nil && ctx.Err() == nil {
		v.cfg.Log.WarnContext(ctx, "view refused", slog.String("agent", f.Agent()),
			slog.String("node", plain.Text(node.GetId())), slog.Any("err", err))
	}
	return view, fault.ToAgent(err)
}

func (v *Views) find(ctx context.Context, f Follower, node *corev3.Node) (*ads.View, error) {
	if node.GetId() == f.ID().String() {
		f.LogsTo(proxy.LogDirOfAgent(node.GetMetadata()))
		return v.agentView(ctx, f)
	}
	ref, err := proxy.ParseRef(node.GetId())
	if err != nil {
		return nil, fault.Denied
	}
	if err := f.Follow(ref); err != nil {
		return nil, err
	}
	shape, err := proxy.ParseShape(node.GetMetadata(), func(s *proxy.Shape) { s.Suit(ref) })
	if err != nil {
		return nil, fault.New(fault.Invalid, "node %s: %v", ref, err)
	}
	shape.Proxy = ""
	return v.nodeView(ctx, f.Agent(), Key{ref, shape})
}

func (v *Views) agentView(ctx context.Context, f Follower) (*ads.View, error) {
	end, err := v.ask(ctx, f.Agent())
	if err != nil {
		return nil, err
	}
	defer end()
	if k := v.agents[f.Agent()]; k != nil {
		k.used = time.Now()
		return k.view, nil
	}
	group, err := v.source.Group(f.Agent()) // again: it may be in another group since it called
	if err != nil {
		return nil, err
	}
	in := v.source.Look()
	all, err := v.buildGroup(in, group)
	if err != nil {
		return nil, err
	}
	set, err := closeView(all, &api.View{Name: f.ID().String(), PolicyRevision: in.Policy.Current.GetId()}, agentTypes)
	if err != nil {
		return nil, err
	}
	k := &keptView{view: ads.NewView(f.ID().String(), ads.Relay), used: time.Now(), made: in.madeOf(all)}
	k.view.Publish(set)
	v.agents[f.Agent()] = k
	return k.view, nil
}

func (v *Views) nodeView(ctx context.Context, agent string, key Key) (*ads.View, error) {
	end, err := v.ask(ctx, agent)
	if err != nil {
		return nil, err
	}
	defer end()
	if k := v.nodes[key]; k != nil {
		k.used = time.Now()
		return k.view, nil
	}
	if err := v.mayMake(agent, key.Node); err != nil {
		return nil, err
	}
	in := v.source.Look().nodeInputs()
	set, err := v.following(in).view(key)
	if err != nil {
		return nil, err
	}
	k := &keptView{view: ads.NewView(key.Node.String(), ads.Relay), used: time.Now(), maker: agent, bytes: set.Bytes()}
	made := set
	set = v.withhold(in, key, k, made)
	if err := v.mayKeep(agent, key.Node, k.bytes); err != nil {
		return nil, err
	}
	v.seq++
	k.makes(viewVersion(set), v.seq)
	v.keepNode(key, k)
	if r := v.rollouts[key.Node]; r != nil {
		r.made[key] = made // the view is silent until then
	} else {
		k.view.Publish(set)
	}
	if in != v.at {
		v.behind[key] = true // what changes back until the others are made is no change to them
	}
	return k.view, nil
}

// What views one agent may have made that are kept: each is built again with what it
// is made of. An agent asks for half as many at most, by bounds of its own; here they
// hold against an agent that has none. One that is there may be followed by all.
const (
	maxMade, MaxMadeOfNode = 1024, 128
	// What views of more than one shape of a virtual node may take in bytes is freeBytes, and
	// shapes times what one view of each of the agent's nodes takes: replicas on one host are few.
	freeBytes, shapes = 64 << 20, 4
)

// mayMake refuses an agent that had too many views made. The caller holds mu.
func (v *Views) mayMake(agent string, node proxy.Ref) error {
	all, ofNode := 0, v.byMaker[agent][node].views
	for _, n := range v.byMaker[agent] {
		all += n.views
	}
	if all >= maxMade || ofNode >= MaxMadeOfNode {
		return fault.New(fault.Limit, "this agent has had %d views made, %d of them of %s, and %d and %d are the most: they are kept for %s after their last use", all, ofNode, node, maxMade, MaxMadeOfNode, viewIdle)
	}
	return v.mayKeep(agent, node, v.byMaker[agent][node].largest) // before it costs anything
}

// mayKeep refuses one more view, of so many bytes, to an agent whose views in many shapes take
// too much. The first of each node is let be. The caller holds mu.
func (v *Views) mayKeep(agent string, node proxy.Ref, more int) error {
	if v.byMaker[agent][node].views == 0 {
		return nil
	}
	all, one := more, 0
	for _, n := range v.byMaker[agent] {
		all, one = all+n.bytes, one+n.largest
	}
	if most := freeBytes + shapes*one; all > most {
		return fault.New(fault.Limit, "the views that this agent has had made take %d bytes with one more of %s in another shape, and %d is the most: they are kept for %s after their last use", all, node, most, viewIdle)
	}
	return nil
}

// ask locks mu for an agent's stream, and returns how to unlock it. Making a view takes up to
// tenths of a second, which what an operator does waits for, too, such as a ban.
func (v *Views) ask(ctx context.Context, agent string) (end func(), err error) {
	leave, err := v.asking.Take(ctx, agent)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	if err := ctx.Err(); err != nil {
		v.mu.Unlock()
		leave()
		return nil, err
	}
	return func() {
		v.mu.Unlock()
		leave()
	}, nil
}

// Changed asks for a rebuild. It never waits.
func (v *Views) Changed() { v.signal.Wake() }

// Run rebuilds when something changed, and lets go of what nobody follows.
func (v *Views) Run(ctx context.Context) error {
	idle := time.NewTicker(viewIdle / 2)
	defer idle.Stop()
	unsaved := time.NewTimer(viewIdle)
	defer unsaved.Stop()
	for {
		heard := v.Heard()
		v.tell(ctx, v.hear(ctx))
		if again := v.save(ctx); again > 0 {
			unsaved.Reset(again)
		}
		select {
		case <-ctx.Done():
			v.stop()
			v.keeper = refused.Keeper{} // without a pause
			v.save(ctx)
			return nil
		case <-unsaved.C:
		case <-v.signal:
			v.Rebuild(ctx, nil)
		case <-heard:
		case <-idle.C:
			v.release()
		}
	}
}

// Rebuild publishes what came out different; tried, if any, is what was built
// before. Agents' own views go first: a policy revision should be there before
// a route speaks of it.
func (v *Views) Rebuild(ctx context.Context, tried *Candidate) {
	start := time.Now()
	v.access.Review()
	v.mu.Lock()
	defer v.mu.Unlock()
	in := v.source.Look() // not before the lock: nobody publishes an older look after a newer one
	v.rebuildAgents(ctx, in)
	v.rebuildNodes(ctx, in.nodeInputs(), tried)
	v.cfg.Metrics.Rebuild.Observe(time.Since(start).Seconds())
}

// rebuildAgents builds what each group is told once, and closes it for each
// agent that was told something else.
func (v *Views) rebuildAgents(ctx context.Context, in Look) {
	now := agentInputs{roster: in.Roster, grants: in.Model.Grants()}
	common, err := v.common(in)
	if now.toAll = common; err == nil && now == v.madeAt {
		return
	}
	failed, groups := err != nil, map[string]bool{}
	for id, k := range v.agents {
		group, err := v.source.Group(id)
		if err != nil {
			delete(v.agents, id)
			continue
		}
		groups[group] = true
		all, err := v.buildGroup(in, group)
		if err != nil {
			v.publish(ctx, k.view, nil, err)
			failed = true
			continue
		}
		if k.made == in.madeOf(all) {
			continue
		}
		set, err := closeView(all, &api.View{Name: k.view.Name(), PolicyRevision: in.Policy.Current.GetId()}, agentTypes)
		if v.publish(ctx, k.view, set, err); err == nil {
			k.made = in.madeOf(all)
		} else {
			failed = true
		}
	}
	maps.DeleteFunc(v.byGroup, func(group string, _ groupSet) bool { return !groups[group] })
	if v.madeAt = now; failed {
		v.madeAt = agentInputs{}
	}
}

// rebuildNodes builds the views that differ by what has changed since they were
// built. One that fails is built again with the next change.
func (v *Views) rebuildNodes(ctx context.Context, in nodeInputs, tried *Candidate) {
	t, urgent := v.following(in), in.stamp != v.at.stamp
	v.forgiveGone()
	again := maps.Clone(v.behind)
	if changed := in.affected(v.at); changed.everything {
		for key := range v.nodes {
			again[key] = true
		}
	} else {
		for at := range changed.nodes {
			maps.Copy(again, v.shapes[at])
		}
	}
	if in.endpoints != v.at.endpoints || in.found != v.at.found {
		v.addKeeping(again)
	}
	v.departed(in)
	v.at, v.behind = in, map[Key]bool{}
	byNode := map[proxy.Ref]map[Key]*ads.Set{}
	for key := range again {
		if in.model.Graph().Node(key.Node) == nil {
			v.dropNode(key) // its streams were ended by review
			continue
		}
		set, err := tried.set(in, key), error(nil)
		if set == nil {
			set, err = t.view(key)
		}
		if err != nil {
			v.publish(ctx, v.nodes[key].view, nil, err)
			v.behind[key] = true
			continue
		}
		if byNode[key.Node] == nil {
			byNode[key.Node] = map[Key]*ads.Set{}
		}
		byNode[key.Node][key] = set
	}
	v.forgive(in.model.Graph(), byNode)
	for node, sets := range byNode {
		v.roll(node, sets, urgent)
	}
}

// publish keeps the last good set of a view that cannot be built.
func (v *Views) publish(ctx context.Context, view *ads.View, set *ads.Set, err error) {
	if err != nil {
		v.cfg.Metrics.BuildErrors.Inc()
		v.cfg.Log.ErrorContext(ctx, "view not built; the last good one stays", slog.String("node", view.Name()), slog.Any("err", err))
		return
	}
	if old := view.Set(); old == nil || old.Version() != set.Version() {
		view.Publish(set)
		v.cfg.Metrics.Published.Inc()
	}
}

// release forgets views without streams. Not those that lack something: whoever comes back,
// however late, still runs what it had in the place of that, which is known nowhere else.
func (v *Views) release() {
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
		if idle(k) && len(k.withheld) == 0 {
			v.dropNode(key)
		}
	}
}

// Count is the number of views with a stream, by kind.
func (v *Views) Count() (agents, nodes int) {
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

// Open lists the outbound listeners that other hosts reach, of proxies that are
// being served now.
func (v *Views) Open() []Key {
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []Key
	for key, k := range v.nodes {
		if key.Shape.EgressOpen && k.view.Streams() > 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

// Unlogged lists the proxies that are being served now and whose host does not
// take the access log of their virtual node.
func (v *Views) Unlogged() []Key {
	graph := v.source.Look().Model.Graph()
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []Key
	for key, k := range v.nodes {
		if n := graph.Node(key.Node); n != nil && n.AccessLog != "" && !key.Shape.Logs(n.AccessLog) && k.view.Streams() > 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

// Stale lists the views of virtual nodes that are not what would be made from nothing
// now. There is none while nothing changes: tests ask.
func (v *Views) Stale() ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []string
	for key, k := range v.nodes {
		set, err := v.translate(v.source.Look().nodeInputs()).view(key)
		if err != nil {
			return nil, err
		}
		if k.view.Set().Version() != set.Version() {
			list = append(list, k.view.Name())
		}
	}
	return list, nil
}

// viewVersion is the version of what closes a set.
func viewVersion(set *ads.Set) string {
	for _, r := range set.Type(ads.ViewType) {
		return r.Version
	}
	return ""
}

// closeView adds the resource that is sent last and tells what is complete (R6).
func closeView(set *ads.Set, v *api.View, types []string) (*ads.Set, error) {
	v.SetVersions = map[string]string{}
	for _, t := range append(set.Types(), types...) {
		v.SetVersions[t] = set.TypeVersion(t)
	}
	view, err := ads.NewResource(ads.ViewType, v.GetName(), v)
	if err != nil {
		return nil, err
	}
	last, err := ads.NewSet(view)
	if err != nil {
		return nil, err
	}
	return set.Merge(last)
}
