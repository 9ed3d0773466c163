package views

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
)

// canaryBound is how long the proxies of one host may take to answer for the others.
const canaryBound = time.Second

// lostCanaries is after how many hosts whose proxies ended, one after the other, before they
// had answered a change, it is refused.
const lostCanaries = 2

// rollout is a change of a virtual node's views on its way: one agent has it first, the
// others when the proxies there have answered (R9). A virtual node has one at a time.
type rollout struct {
	sets    map[Key]*ads.Set // what is to be published
	parked  map[Key]*ads.Set // what was made since; nil for nothing
	key     Key              // the view that is tried
	agent   string           // that tries it
	version string           // that it is to answer
	lost    int
	timer   *time.Timer
}

// roll publishes sets that were made of a virtual node, to one agent first where the proxies
// of several follow and there is something that these could refuse. What is urgent goes at
// once, and what is under way with it. The caller holds mu.
func (v *Views) roll(node proxy.Ref, sets map[Key]*ads.Set, urgent bool) {
	if r := v.rollouts[node]; r != nil {
		for _, made := range []map[Key]*ads.Set{r.parked, r.sets} { // newest first
			for key, set := range made {
				if sets[key] == nil {
					sets[key] = set
				}
			}
		}
		if !urgent && v.untried(sets) {
			r.parked = sets
			return
		}
		v.end(node, r)
	}
	r := &rollout{sets: sets}
	if urgent || !v.untried(sets) || !v.begin(node, r) {
		v.publishAll(sets)
	}
}

func (v *Views) untried(sets map[Key]*ads.Set) bool {
	for key, set := range sets {
		if k := v.nodes[key]; k != nil && len(k.view.New(set)) > 0 {
			return true
		}
	}
	return false
}

// begin has one agent try a change. False where there is none whose answer is worth waiting
// for, or that could spare others.
func (v *Views) begin(node proxy.Ref, r *rollout) bool {
	agent, key, ok := v.canaryFor(node, r)
	if !ok {
		return false
	}
	if old := v.nodes[r.key]; old != nil && r.key != key {
		old.view.Publish(old.view.Set()) // who tried it before has what all have
	}
	r.agent, r.key, r.version = agent, key, viewVersion(r.sets[key])
	if r.timer == nil {
		r.timer = time.AfterFunc(canaryBound, func() { v.expire(node, r) })
	}
	v.rollouts[node] = r
	v.nodes[key].view.Try(r.sets[key], agent)
	return true
}

// canaryFor is an agent whose proxies have answered before, with the view that they follow and that
// changes; one that was mute the last time only where there is no other.
func (v *Views) canaryFor(node proxy.Ref, r *rollout) (agent string, key Key, ok bool) {
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	hosts, best := 0, 0
	for name, list := range v.heard.by {
		i := slices.IndexFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 && f.Version != "" })
		if i < 0 {
			continue
		}
		hosts++
		rank := 2
		if v.mute[name] {
			rank = 1
		}
		for k, set := range r.sets {
			if kept := v.nodes[k]; rank > best && kept != nil && len(kept.view.New(set)) > 0 && kept.view.FollowedBy(name) {
				agent, key, best = name, k, rank
			}
		}
	}
	return agent, key, best > 0 && (hosts > 1 || r.lost > 0)
}

// end takes a rollout off the way. What was tried is not taken back by that: the next
// publication replaces it.
func (v *Views) end(node proxy.Ref, r *rollout) {
	r.timer.Stop()
	delete(v.rollouts, node)
}

// conclude publishes what was tried to all, and goes on with what was made meanwhile.
func (v *Views) conclude(node proxy.Ref, r *rollout) {
	v.end(node, r)
	v.publishAll(r.sets)
	if r.parked != nil {
		v.roll(node, r.parked, false)
	}
}

func (v *Views) publishAll(sets map[Key]*ads.Set) {
	for key, set := range sets {
		k := v.nodes[key]
		if k == nil {
			continue
		}
		if old := k.view.Set(); old == nil || old.Version() != set.Version() {
			v.cfg.Metrics.Published.Inc()
		}
		k.view.Publish(set)
	}
}

// expire goes on without the answer of an agent that gives none.
func (v *Views) expire(node proxy.Ref, r *rollout) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rollouts[node] != r {
		return
	}
	v.mute[r.agent] = true
	v.cfg.Log.Warn("a change was sent to one agent first, which has not answered: the others get it", slog.String("node", node.String()), slog.String("agent", r.agent))
	v.conclude(node, r)
}

// Refused is a resource that a proxy of a virtual node refused, and that is withheld from all
// of them until it is another one (R8).
type Refused struct {
	Node                         proxy.Ref
	Agent, Envoy                 string // whose proxy refused it, and in which version
	Type, Name, Version, Message string // the last in Envoy's words
}

// resource is one version of a resource.
type resource struct{ typeURL, name, version string }

func resourceOf(r *ads.Resource) resource { return resource{r.Type, r.Name, r.Version} }

// refusal is who refused a resource, as a proxy of what, and in which version of Envoy.
type refusal struct {
	node         proxy.Ref
	agent, envoy string
}

// mostRefused is how many resources are withheld at a time, of all virtual nodes: more is left to
// each proxy, which keeps what it had.
const mostRefused = 10_000

// isRefused reports whether a resource is withheld from a view: a proxy of its virtual node
// refused it. No agent decides for other nodes than its own, however many say the same: what
// joins costs little. Nor does one version of Envoy for another.
func (v *Views) isRefused(key Key, r *ads.Resource) bool {
	for by := range v.refused[resourceOf(r)] {
		if by.node == key.Node && by.envoy == key.Shape.EnvoyVersion {
			return true
		}
	}
	return false
}

// withhold is a set that was made for a view without what its proxies refused.
func (v *Views) withhold(key Key, k *keptView, set *ads.Set) (*ads.Set, error) {
	if k.withheld = nil; len(v.refused) == 0 {
		return set, nil
	}
	last := v.lastOf(key, k)
	spared := set.Withhold(func(r *ads.Resource) bool {
		was := last.Get(r.Type, r.Name)
		// What all have already is not taken away: who refuses it has kept what it had.
		bad := v.isRefused(key, r) && (was == nil || was.Version != r.Version)
		if bad && set.Get(r.Type, r.Name) == r {
			k.withheld = append(k.withheld, resourceOf(r))
		}
		return bad
	}, last)
	if k.withheld == nil {
		return set, nil
	}
	return closeView(spared.Without(ads.ViewType), joined(set, last, spared), nodeTypes)
}

// joined is what is told of a set beside its resources, with what those need that stay from
// the last one: names of files that spared still has.
func joined(set, last, spared *ads.Set) *api.View {
	var v, before api.View
	for of, in := range map[*api.View]*ads.Set{&v: set, &before: last} {
		for _, r := range in.Type(ads.ViewType) {
			_ = proto.Unmarshal(r.Body, of) // we wrote it
		}
	}
	for _, f := range before.GetTlsFiles() {
		if !slices.Contains(v.GetTlsFiles(), f) && mentioned(spared, f) {
			v.TlsFiles = append(v.TlsFiles, f)
		}
	}
	return &v
}

// mentioned reports whether a cluster or listener of a set has the name of a secret in it.
func mentioned(set *ads.Set, name string) bool {
	for _, t := range []string{ads.ClusterType, ads.ListenerType} {
		if slices.ContainsFunc(set.Type(t), func(r *ads.Resource) bool { return bytes.Contains(r.Body, []byte(name)) }) {
			return true
		}
	}
	return false
}

// lastOf is what proxies of a view have; of one that has none so far, what those in another
// shape have, less their listeners, which are in other places.
func (v *Views) lastOf(key Key, k *keptView) *ads.Set {
	if last := cmp.Or(k.good, k.view.Set()); last != nil {
		return last
	}
	if last := v.last[key]; last != nil {
		return last
	}
	for other := range v.shapes[key.Node] {
		if last := v.nodes[other].view.Set(); last != nil {
			return last.Without(ads.ListenerType)
		}
	}
	return nil
}

// hear does what follows of what agents have said since it did the last time: what is tried
// is published, or made again without what was refused. It returns what was refused.
func (v *Views) hear(ctx context.Context) []Refused {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.heard.mu.Lock()
	news := v.heard.news
	v.heard.news = map[string]bool{}
	said := map[string][]Following{}
	for agent := range news {
		if said[agent] = v.heard.by[agent]; said[agent] == nil { // it has left
			delete(v.mute, agent)
		}
	}
	v.heard.mu.Unlock()
	var found []Refused
	again := map[proxy.Ref]bool{}
	for agent, list := range said {
		for _, f := range list {
			new := v.refuses(agent, f)
			if found = append(found, new...); len(new) > 0 {
				again[f.Node] = true
			}
			v.answered(f)
			if r := v.rollouts[f.Node]; r == nil || r.agent != agent || r.version != f.Version || f.Proxies == 0 {
				continue
			}
			if delete(v.mute, agent); !again[f.Node] {
				v.conclude(f.Node, v.rollouts[f.Node])
			}
		}
	}
	for node, r := range v.rollouts {
		if list, ok := said[r.agent]; ok && !again[node] && !follows(list, node) {
			if lost := v.lose(node, r, list != nil); len(lost) > 0 {
				found, again[node] = append(found, lost...), true
			}
		}
	}
	for node := range again {
		if r := v.rollouts[node]; r != nil {
			v.end(node, r)
		}
		for key := range v.shapes[node] {
			v.behind[key] = true
		}
	}
	if len(again) > 0 {
		v.rebuildNodes(ctx, v.source.Look().nodeInputs(), nil)
	}
	return found
}

// answered notes which sets are known to be good: all of what was answered, less what was
// refused, in the place of which the proxies have what they had.
func (v *Views) answered(f Following) {
	if f.Proxies == 0 || f.Version == "" {
		return
	}
	for key := range v.shapes[f.Node] {
		k := v.nodes[key]
		sets := []*ads.Set{k.view.Set()}
		if r := v.rollouts[key.Node]; r != nil {
			sets = append(sets, r.sets[key])
		}
		for _, set := range sets {
			switch {
			case viewVersion(set) != f.Version:
			case len(f.Rejected) == 0:
				k.good = set
			case k.good != nil && viewVersion(k.good) != f.Version: // else others have answered more of it
				k.good = set.Withhold(f.refused(k.good), k.good)
			}
		}
	}
}

// refused is what proxies refused, of what was not good before.
func (f Following) refused(good *ads.Set) func(*ads.Resource) bool {
	return func(r *ads.Resource) bool {
		if was := good.Get(r.Type, r.Name); was != nil && was.Version == r.Version {
			return false
		}
		return slices.ContainsFunc(f.Rejected, func(j *api.ResourceStatus) bool {
			return j.GetTypeUrl() == r.Type && j.GetName() == r.Name && j.GetVersion() == r.Version
		})
	}
}

func follows(list []Following, node proxy.Ref) bool {
	return slices.ContainsFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 })
}

// refuses takes what an agent says that its proxies refused, as far as it is what their
// views have, and returns what is new of it.
func (v *Views) refuses(agent string, f Following) (found []Refused) {
	for _, j := range f.Rejected {
		at := resource{j.GetTypeUrl(), j.GetName(), j.GetVersion()}
		by := refusal{f.Node, agent, f.Envoy}
		if _, known := v.refused[at][by]; known || len(v.refused) >= mostRefused || !v.has(f.Node, at) || !v.runs(agent, f) {
			continue
		}
		if v.taken(f.Node, at) || proxy.OfItsHost(j.GetMessage()) {
			continue // who refuses it keeps what it had, and its agent reports that
		}
		found = append(found, v.refuse(at, by, j.GetMessage()))
	}
	return found
}

// runs reports whether an agent follows a virtual node with the version of Envoy that it speaks of.
func (v *Views) runs(agent string, f Following) bool {
	for key := range v.shapes[f.Node] {
		if key.Shape.EnvoyVersion == f.Envoy && v.nodes[key].view.FollowedBy(agent) {
			return true
		}
	}
	return false
}

// taken reports whether proxies of a virtual node have taken a resource: it is nothing that no
// Envoy takes, and must not be taken away from those who run it.
func (v *Views) taken(node proxy.Ref, at resource) bool {
	for key := range v.shapes[node] {
		if r := v.nodes[key].good.Get(at.typeURL, at.name); r != nil && r.Version == at.version {
			return true
		}
	}
	return false
}

// refuse notes a refusal.
func (v *Views) refuse(at resource, by refusal, message string) Refused {
	if v.refused[at] == nil {
		v.refused[at] = map[refusal]Refused{}
	}
	r := Refused{by.node, by.agent, by.envoy, at.typeURL, at.name, at.version, plain.Text(message)}
	v.refused[at][by], v.unsaved = r, true
	return r
}

// has reports whether proxies of a virtual node have a resource, or are to have it.
func (v *Views) has(node proxy.Ref, at resource) bool {
	is := func(set *ads.Set) bool {
		r := set.Get(at.typeURL, at.name)
		return r != nil && r.Version == at.version
	}
	r := v.rollouts[node]
	for key := range v.shapes[node] {
		if is(v.nodes[key].view.Set()) || r != nil && is(r.sets[key]) {
			return true
		}
	}
	return false
}

// lose has another agent try what ended the proxies of one, or went with its connection;
// what ended those of two is refused.
func (v *Views) lose(node proxy.Ref, r *rollout, connected bool) (refused []Refused) {
	if connected {
		r.lost++
	}
	if r.lost >= lostCanaries {
		for _, res := range v.nodes[r.key].view.New(r.sets[r.key]) { // it is kept as long as it is tried
			refused = append(refused, v.refuse(resourceOf(res), refusal{node, r.agent, r.key.Shape.EnvoyVersion}, "the proxies of two agents ended, one after the other, before they had answered it"))
		}
		return refused
	}
	if !v.begin(node, r) {
		v.conclude(node, r)
	}
	return nil
}

// forgiveGone forgets the refusals of agents that are not served any more, and has the views
// made again that lack something because of them. The caller holds mu.
func (v *Views) forgiveGone() {
	for at, by := range v.refused {
		n := len(by)
		maps.DeleteFunc(by, func(who refusal, _ Refused) bool {
			_, err := v.source.Group(who.agent)
			return err != nil
		})
		if len(by) == n {
			continue
		}
		v.unsaved = true
		for key, k := range v.nodes {
			if slices.Contains(k.withheld, at) {
				v.behind[key] = true
			}
		}
	}
}

// forgive forgets refusals of what is not made any more for any view of their node. The
// caller holds mu.
func (v *Views) forgive(g *mesh.Graph, made map[proxy.Ref]map[Key]*ads.Set) {
	for at, by := range v.refused {
		for who := range by {
			sets, all := made[who.node], len(v.shapes[who.node])
			gone := all == 0 && g.Node(who.node) == nil // where nobody follows it now, nothing is known of it
			if gone || all > 0 && len(sets) == all && !anyHas(sets, at) {
				delete(by, who)
				v.unsaved = true
			}
		}
		if len(by) == 0 {
			delete(v.refused, at)
		}
	}
}

func anyHas(sets map[Key]*ads.Set, at resource) bool {
	for _, set := range sets {
		if r := set.Get(at.typeURL, at.name); r != nil && r.Version == at.version {
			return true
		}
	}
	return false
}

// Withheld is a report with what is not sent to its proxies since some of their virtual
// node refused it: their agent does not know, for it has not been tried there, or not again.
func (v *Views) Withheld(r *api.Report) *api.Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r == nil || len(v.refused) == 0 {
		return r
	}
	of, _ := proto.Clone(r).(*api.Report) // Clone returns what it was given
	for _, p := range of.GetProxies() {
		for _, w := range v.withheldFrom(fleet.RefOf(p)) {
			if slices.ContainsFunc(p.GetRejected(), func(j *api.ResourceStatus) bool {
				return j.GetTypeUrl() == w.Type && j.GetName() == w.Name && j.GetVersion() == w.Version
			}) {
				continue
			}
			p.Rejected = append(p.Rejected, &api.ResourceStatus{TypeUrl: w.Type, Name: w.Name, Version: w.Version, Message: fmt.Sprintf("refused at agent %s: %s", w.Agent, w.Message)})
			p.Config = api.ProxyStatus_REJECTED.Enum()
		}
	}
	api.Reconcile(of)
	return of
}

// withheldFrom lists what proxies of a virtual node are not sent. The caller holds mu.
func (v *Views) withheldFrom(node proxy.Ref) (list []Refused) {
	for key := range v.shapes[node] {
		for _, at := range v.nodes[key].withheld {
			by := slices.Collect(maps.Values(v.refused[at]))
			if len(by) > 0 {
				list = append(list, slices.MinFunc(by, Refused.compare))
			}
		}
	}
	slices.SortFunc(list, Refused.compare)
	return slices.Compact(list)
}

func (r Refused) compare(o Refused) int {
	return cmp.Or(strings.Compare(r.Type, o.Type), strings.Compare(r.Name, o.Name), strings.Compare(r.Version, o.Version),
		r.Node.Compare(o.Node), strings.Compare(r.Agent, o.Agent))
}

// unheard reports whether agents have said something since hear.
func (v *Views) unheard() bool {
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	return len(v.heard.news) > 0
}

// tell has the operator know what was refused, once for each virtual node and agent.
func (v *Views) tell(ctx context.Context, found []Refused) {
	count := map[refusal]int{}
	for _, r := range found {
		count[refusal{node: r.Node, agent: r.Agent}]++
	}
	for _, r := range found {
		of := refusal{node: r.Node, agent: r.Agent}
		if n := count[of]; n > 0 {
			v.cfg.Log.ErrorContext(ctx, "a proxy refused what its virtual node was to have: all of that node keep the last good one", slog.String("node", r.Node.String()), slog.String("agent", r.Agent),
				slog.String("type", r.Type), slog.String("name", plain.Text(r.Name)), slog.String("version", plain.Text(r.Version)), slog.Int("resources", n), slog.String("err", r.Message))
			v.cfg.Refused(ctx, r, n)
		}
		delete(count, of)
	}
}

// stop ends what is on its way when the server does.
func (v *Views) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for node, r := range v.rollouts {
		v.end(node, r)
	}
}
