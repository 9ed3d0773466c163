package views

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/server/refused"
)

// canaryBound is how long a change waits for the answer of the host that has it first.
const canaryBound = time.Second

// lostCanaries is the number of hosts whose proxies may end, one after the other, before they have
// answered a change; then it counts as refused.
const lostCanaries = 2

// rollout is a change of a virtual node's views that one agent has first, and the others once
// that agent's proxies have answered (R9). A virtual node has one rollout at a time.
type rollout struct {
	made   map[Key]*ads.Set // the sets to publish, before anything is withheld
	seq    uint64           // of what was made
	parked map[Key]*ads.Set // newer sets, for the next rollout; nil for none
	again  bool             // it is about to be made again, since something was refused
	attempt
	tries map[string]try // by agent
	timer *time.Timer
}

// try is what is known of an agent that had a change before others. It holds as often as the
// change is made again: one that refuses one thing after the other delays it no longer.
type try struct {
	until time.Time // the others get it without its answer
	lost  bool      // its proxies ended before they had answered it
}

// attempt is what one agent has before the others: everything that its own proxies have not refused.
type attempt struct {
	key   Key // the view that is tried
	agent string
	set   *ads.Set
}

// roll publishes new sets of a virtual node. They go to one agent first if the proxies of several
// agents follow the node and could refuse something of them. Urgent sets go to all at once, and
// take a rollout in progress with them. The caller holds mu.
func (v *Views) roll(node proxy.Ref, made map[Key]*ads.Set, urgent bool) {
	v.seq++
	for key, set := range made {
		all, _ := v.spared(v.at, key, v.nodes[key], set, "")
		v.nodes[key].makes(viewVersion(all), v.seq)
	}
	r := &rollout{made: made, seq: v.seq, tries: map[string]try{}}
	if before := v.rollouts[node]; before != nil {
		for _, older := range []map[Key]*ads.Set{before.parked, before.made} { // newest first
			for key, set := range older {
				if made[key] == nil {
					made[key] = set
				}
			}
		}
		if !urgent && !before.again && v.untried(made) {
			before.parked = made
			return
		}
		if before.again {
			r.tries = before.tries
		}
		v.end(node, before)
	}
	all := urgent || v.answeredAlready(r)
	if all {
		v.publishAll(r)
	}
	if !v.begin(node, r) && !all {
		v.publishAll(r)
	}
}

// answeredAlready reports whether the agent that had what was made has answered it, at the moment
// at which another one refused something. It will not say so again.
func (v *Views) answeredAlready(r *rollout) bool {
	for key := range r.made {
		if k := v.nodes[key]; k != nil && viewVersion(k.good) == k.newest && len(k.view.New(k.good)) > 0 {
			return true
		}
	}
	return false
}

func (v *Views) untried(sets map[Key]*ads.Set) bool {
	for key, set := range sets {
		if k := v.nodes[key]; k != nil && len(k.view.New(set)) > 0 {
			return true
		}
	}
	return false
}

// begin has one agent try a change. It returns false if no agent's answer is worth waiting for.
func (v *Views) begin(node proxy.Ref, r *rollout) bool {
	next, ok := v.canaryFor(node, r)
	if !ok {
		return false
	}
	if old := v.nodes[r.key]; old != nil && r.key != next.key {
		old.view.Publish(old.view.Set()) // the agent that tried before goes back to what all have
	}
	r.attempt = next
	t, ok := r.tries[next.agent]
	if !ok {
		t.until = time.Now().Add(canaryBound)
		r.tries[next.agent] = t
	}
	r.stop()
	r.timer = time.AfterFunc(time.Until(t.until), func() { v.expire(node, r, next.agent) })
	v.rollouts[node] = r
	k := v.nodes[next.key]
	k.gives(viewVersion(next.set), r.seq)
	k.view.Try(next.set, next.agent)
	return true
}

// canaryFor chooses the agent that has a change first: one whose proxies have answered before and
// follow a view that changes. Agents whose proxies have refused something, or that did not answer
// the last time, are chosen only if there is no other. An only agent is chosen, too, for what
// others refused and its proxies have not tried.
func (v *Views) canaryFor(node proxy.Ref, r *rollout) (found attempt, ok bool) {
	plans := v.plans(r) // once for each view, however many hosts there are
	hosts, best, second, lost := 0, 0, false, r.lost()
	for name, list := range v.heard.All() {
		if r.tries[name].lost || !slices.ContainsFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 && f.Version != "" }) {
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
			if opinion || len(p.kept.view.New(set)) > 0 { // what one refused may have been sent to all before
				found, best, second = attempt{p.key, name, set}, rank, opinion
			}
		}
	}
	return found, best > 0 && (hosts > 1 || lost > 0 || second)
}

// plan is the set that all proxies of one view would have.
type plan struct {
	key      Key
	kept     *keptView
	all      *ads.Set
	withheld []refused.Resource
}

// plans returns the plan of each view of a rollout that still exists.
func (v *Views) plans(r *rollout) (list []plan) {
	for key, made := range r.made {
		if k := v.nodes[key]; k != nil {
			all, withheld := v.spared(v.at, key, k, made, "")
			list = append(list, plan{key, k, all, withheld})
		}
	}
	return list
}

// end drops a rollout. The agent that tried it keeps what it has until the next publication.
func (v *Views) end(node proxy.Ref, r *rollout) {
	r.stop()
	delete(v.rollouts, node)
}

func (r *rollout) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// lost is how many agents' proxies ended. None is counted twice, however often it comes back.
func (r *rollout) lost() (n int) {
	for _, t := range r.tries {
		if t.lost {
			n++
		}
	}
	return n
}

// conclude publishes a rollout to all agents. Then it starts the next one: of the newer sets if
// there are any, else of what some agents refused and another has not tried.
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

// publishAll publishes the sets to all agents, without what is withheld.
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

// expire continues without the answer of an agent that has not given one in time. What others
// refused of the change is then no longer withheld because of this agent.
func (v *Views) expire(node proxy.Ref, r *rollout, agent string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rollouts[node] != r || r.agent != agent {
		return
	}
	v.mute[r.agent] = true
	v.cfg.Log.Warn("a change was sent to one agent first, which has not answered: the others get it", slog.String("node", node.String()), slog.String("agent", r.agent))
	v.overrule(r.key, r.set, nil, formOf)
	v.conclude(node, r)
}

// hearing is one time at which reports are processed.
type hearing struct {
	v        *Views
	offers   map[proxy.Ref]*offer
	room     *refused.Room // nil until something is refused
	found    []refused.Refusal
	again    map[proxy.Ref]bool // whose views are to be made again
	answered map[proxy.Ref]bool // whose rollout has an answer
}

// hear processes the reports since its last call: it publishes rollouts that were accepted, and
// rebuilds without what was refused. It returns the new refusals.
func (v *Views) hear(ctx context.Context) []refused.Refusal {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := hearing{v: v, offers: map[proxy.Ref]*offer{}, again: map[proxy.Ref]bool{}, answered: map[proxy.Ref]bool{}}
	said, gone := v.heard.Take()
	refusing := map[string]time.Duration{}
	for agent, list := range said {
		begun, found := time.Now(), len(h.found)
		for _, f := range list {
			h.one(agent, f)
		}
		if took := time.Since(begun); len(h.found) == found {
			v.heard.Cost(agent, took)
		} else {
			refusing[agent] = took
		}
	}
	for node := range h.answered {
		if r := v.rollouts[node]; !h.again[node] {
			v.conclude(node, r)
		}
	}
	maps.DeleteFunc(v.mute, func(agent string, _ bool) bool { return slices.Contains(gone, agent) })
	for node, r := range v.rollouts {
		list, connected := said[r.agent]
		if h.again[node] || (!connected || follows(list, node)) && !slices.Contains(gone, r.agent) {
			continue
		}
		if lost := v.lose(node, r, connected, h.take); len(lost) > 0 {
			h.found, h.again[node] = append(h.found, lost...), true
		}
	}
	begun := time.Now()
	v.makeAgain(ctx, h.again)
	for agent, took := range refusing {
		v.heard.Cost(agent, took+time.Since(begun))
	}
	return h.found
}

// take reports whether one more refusal of an agent's is kept.
func (h *hearing) take(agent string) bool {
	if h.room == nil {
		h.room = h.v.refused.Room()
	}
	return h.room.Take(agent)
}

// one is hear of one view.
func (h *hearing) one(agent string, f Following) {
	of := h.offers[f.Node]
	if of == nil {
		of = h.v.offerOf(f.Node)
		h.offers[f.Node] = of
	}
	if new := h.v.refuses(agent, f, of, h.take); len(new) > 0 {
		h.found, h.again[f.Node] = append(h.found, new...), true
	}
	h.v.answered(f, of)
	r := h.v.rollouts[f.Node]
	if r == nil && !h.again[f.Node] && h.v.lacks(agent, f) {
		h.again[f.Node] = true // it can try that
	}
	if r != nil && r.agent == agent && viewVersion(r.set) == f.Version && f.Proxies > 0 {
		delete(h.v.mute, agent)
		h.answered[f.Node] = true
	}
}

// makeAgain makes all views of virtual nodes anew.
func (v *Views) makeAgain(ctx context.Context, nodes map[proxy.Ref]bool) {
	for node := range nodes {
		if r := v.rollouts[node]; r != nil {
			r.again = true
		}
		for key := range v.shapes[node] {
			v.behind[key] = true
		}
	}
	if len(nodes) > 0 {
		v.rebuildNodes(ctx, v.source.Look().nodeInputs(), nil)
	}
}

func follows(list []Following, node proxy.Ref) bool {
	return slices.ContainsFunc(list, func(f Following) bool { return f.Node == node && f.Proxies > 0 })
}

// lacks reports whether something is withheld from a view that an agent's proxies have answered,
// although they have not refused it.
func (v *Views) lacks(agent string, f Following) bool {
	if f.Proxies == 0 || f.Version == "" || len(v.refused[f.Node]) == 0 {
		return false
	}
	for key := range v.shapes[f.Node] {
		if k := v.nodes[key]; len(k.withheld) > 0 && k.view.FollowedBy(agent) && v.refused[f.Node].UntriedBy(agent, k.withheld) {
			return true
		}
	}
	return false
}

// lose has another agent try a change when the proxies of the first have ended, or its connection
// has. If that happens at two agents that are still connected, the change counts as refused.
// What of that room does not take is published to all.
func (v *Views) lose(node proxy.Ref, r *rollout, connected bool, room func(agent string) bool) (found []refused.Refusal) {
	if connected {
		r.tries[r.agent] = try{r.tries[r.agent].until, true}
	}
	if r.lost() >= lostCanaries {
		for _, res := range v.nodes[r.key].view.New(r.set) { // it is kept as long as it is tried
			if !room(r.agent) {
				break
			}
			found = append(found, v.refuse(refused.Refusal{
				Node: node, Agent: r.agent, Envoy: r.key.Shape.EnvoyVersion, Type: res.Type, Name: res.Name, Version: res.Version, Form: formOf(res).Form,
				Message: "the proxies of two agents ended, one after the other, before they had answered it", Ended: true,
			}))
		}
		if len(found) == 0 {
			v.conclude(node, r)
		}
		return found
	}
	if !v.begin(node, r) {
		v.conclude(node, r)
	}
	return nil
}

// stop ends all rollouts when the server stops.
func (v *Views) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for node, r := range v.rollouts {
		v.end(node, r)
	}
}
