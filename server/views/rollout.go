package views

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/server/refused"
)

// canaryBound is how long the proxies of one host may take to answer for the others.
const canaryBound = time.Second

// lostCanaries is after how many hosts whose proxies ended, one after the other, before they
// had answered a change, it is refused.
const lostCanaries = 2

// rollout is a change of a virtual node's views on its way: one agent has it first, the
// others when the proxies there have answered (R9). A virtual node has one at a time.
type rollout struct {
	made   map[Key]*ads.Set // what is to be published, and what was refused of it
	seq    uint64           // of what was made
	parked map[Key]*ads.Set // what was made since; nil for nothing
	attempt
	lost  int
	timer *time.Timer
}

// attempt is what one agent has before the others: all that its own proxies have not refused.
type attempt struct {
	key   Key // the view that is tried
	agent string
	set   *ads.Set
}

// roll publishes sets that were made of a virtual node, to one agent first where the proxies
// of several follow and there is something that these could refuse. What is urgent goes at
// once, and what is under way with it. The caller holds mu.
func (v *Views) roll(node proxy.Ref, made map[Key]*ads.Set, urgent bool) {
	v.seq++
	for key, set := range made {
		all, _ := v.spared(v.at, key, v.nodes[key], set, "")
		v.nodes[key].makes(viewVersion(all), v.seq)
	}
	if r := v.rollouts[node]; r != nil {
		for _, older := range []map[Key]*ads.Set{r.parked, r.made} { // newest first
			for key, set := range older {
				if made[key] == nil {
					made[key] = set
				}
			}
		}
		if !urgent && v.untried(made) {
			r.parked = made
			return
		}
		v.end(node, r)
	}
	r := &rollout{made: made, seq: v.seq}
	if urgent {
		v.publishAll(r)
	}
	if !v.begin(node, r) && !urgent {
		v.publishAll(r)
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
	next, ok := v.canaryFor(node, r)
	if !ok {
		return false
	}
	if old := v.nodes[r.key]; old != nil && r.key != next.key {
		old.view.Publish(old.view.Set()) // who tried it before has what all have
	}
	r.attempt = next
	if r.timer == nil {
		r.timer = time.AfterFunc(canaryBound, func() { v.expire(node, r) })
	}
	v.rollouts[node] = r
	k := v.nodes[next.key]
	k.gives(viewVersion(next.set), r.seq)
	k.view.Try(next.set, next.agent)
	return true
}

// canaryFor is an agent whose proxies have answered before, with the view that they follow and that
// changes; one whose proxies refused something, or that was mute the last time, only where there is
// no other. What others refused is tried by the last one, too, that has not.
func (v *Views) canaryFor(node proxy.Ref, r *rollout) (found attempt, ok bool) {
	plans := v.plans(r) // of each view once, however many hosts there are
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	hosts, best, second := 0, 0, false
	for name, list := range v.heard.by {
		if !slices.ContainsFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 && f.Version != "" }) {
			continue
		}
		hosts++
		rank := 1
		if !v.mute[name] {
			rank++
		}
		if !v.refused[node].SomeOf(name) {
			rank += 2
		}
		for _, p := range plans {
			if rank <= best || !p.kept.view.FollowedBy(name) {
				continue
			}
			set, opinion := p.all, v.refused[node].UntriedBy(name, p.withheld)
			if opinion {
				set, _ = v.spared(v.at, p.key, p.kept, r.made[p.key], name)
			}
			if opinion || len(p.kept.view.New(set)) > 0 { // all may have been sent what one refused
				found, best, second = attempt{p.key, name, set}, rank, opinion
			}
		}
	}
	return found, best > 0 && (hosts > 1 || r.lost > 0 || second)
}

// plan is what all would have of one view.
type plan struct {
	key      Key
	kept     *keptView
	all      *ads.Set
	withheld []refused.Resource
}

// plans are those of the views of a rollout that are kept still.
func (v *Views) plans(r *rollout) (list []plan) {
	for key, made := range r.made {
		if k := v.nodes[key]; k != nil {
			all, withheld := v.spared(v.at, key, k, made, "")
			list = append(list, plan{key, k, all, withheld})
		}
	}
	return list
}

// end takes a rollout off the way. What was tried is not taken back by that: the next
// publication replaces it.
func (v *Views) end(node proxy.Ref, r *rollout) {
	if r.timer != nil {
		r.timer.Stop()
	}
	delete(v.rollouts, node)
}

// conclude publishes what was tried to all, and goes on with what was made meanwhile, or with
// what others refused and somebody has not tried.
func (v *Views) conclude(node proxy.Ref, r *rollout) {
	v.end(node, r)
	v.publishAll(r)
	switch {
	case r.parked != nil:
		v.roll(node, r.parked, false)
	case len(v.refused[node]) > 0:
		v.roll(node, r.made, false)
	}
}

// publishAll has all have what was made, without what is withheld of it.
func (v *Views) publishAll(r *rollout) {
	for key, made := range r.made {
		k := v.nodes[key]
		if k == nil {
			continue
		}
		set := v.withhold(v.at, key, k, made)
		k.gives(viewVersion(set), r.seq)
		if old := k.view.Set(); old == nil || old.Version() != set.Version() {
			v.cfg.Metrics.Published.Inc()
		}
		k.view.Publish(set)
	}
}

// expire goes on without the answer of an agent that gives none: what others refused is not
// held back by it.
func (v *Views) expire(node proxy.Ref, r *rollout) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rollouts[node] != r {
		return
	}
	v.mute[r.agent] = true
	v.cfg.Log.Warn("a change was sent to one agent first, which has not answered: the others get it", slog.String("node", node.String()), slog.String("agent", r.agent))
	v.overrule(r.key, r.set, nil)
	v.conclude(node, r)
}

// hear does what follows of what agents have said since it did the last time: what is tried
// is published, or made again without what was refused. It returns what was refused.
func (v *Views) hear(ctx context.Context) []refused.Refusal {
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
	var found []refused.Refusal
	again := map[proxy.Ref]bool{}
	for agent, list := range said {
		for _, f := range list {
			fresh := v.refuses(agent, f)
			if found = append(found, fresh...); len(fresh) > 0 {
				again[f.Node] = true
			}
			v.answered(f)
			r := v.rollouts[f.Node]
			if r == nil && v.lacks(agent, f) {
				again[f.Node] = true // it can try that
			}
			if r == nil || r.agent != agent || viewVersion(r.set) != f.Version || f.Proxies == 0 {
				continue
			}
			if delete(v.mute, agent); !again[f.Node] {
				v.conclude(f.Node, r)
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

func follows(list []Following, node proxy.Ref) bool {
	return slices.ContainsFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 })
}

// lacks reports whether an agent's proxies have answered a view that lacks what they have not
// refused.
func (v *Views) lacks(agent string, f Following) bool {
	if f.Proxies == 0 || f.Version == "" || len(v.refused[f.Node]) == 0 {
		return false
	}
	for key := range v.shapes[f.Node] {
		if k := v.nodes[key]; k.view.FollowedBy(agent) && v.refused[f.Node].UntriedBy(agent, k.withheld) {
			return true
		}
	}
	return false
}

// answered notes which sets are known to be good: all of what was answered, less what was
// refused, in the place of which the proxies have what they had. What is good holds over
// whoever refuses it.
func (v *Views) answered(f Following) {
	if f.Proxies == 0 || f.Version == "" {
		return
	}
	for key := range v.shapes[f.Node] {
		k := v.nodes[key]
		sets := []*ads.Set{k.view.Set()}
		if r := v.rollouts[key.Node]; r != nil && r.key == key {
			sets = append(sets, r.set)
		}
		for _, set := range sets {
			if viewVersion(set) != f.Version {
				continue
			}
			v.overrule(key, set, f.Rejected)
			switch {
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
		was := good.Get(r.Type, r.Name)
		return (was == nil || was.Version != r.Version) && rejects(f.Rejected, r)
	}
}

// lose has another agent try what ended the proxies of one, or went with its connection;
// what ended those of two is refused.
func (v *Views) lose(node proxy.Ref, r *rollout, connected bool) (found []refused.Refusal) {
	if connected {
		r.lost++
	}
	if r.lost >= lostCanaries {
		for _, res := range v.nodes[r.key].view.New(r.set) { // it is kept as long as it is tried
			found = append(found, v.refuse(refused.Refusal{
				Node: node, Agent: r.agent, Envoy: r.key.Shape.EnvoyVersion, Type: res.Type, Name: res.Name, Version: res.Version, Form: formOf(res).Form,
				Message: "the proxies of two agents ended, one after the other, before they had answered it", Ended: true,
			}))
		}
		return found
	}
	if !v.begin(node, r) {
		v.conclude(node, r)
	}
	return nil
}

// stop ends what is on its way when the server does.
func (v *Views) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for node, r := range v.rollouts {
		v.end(node, r)
	}
}
