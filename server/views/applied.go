package views

import (
	"context"
	"slices"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/departed"
)

// versionsKept is how many versions of a view are told apart by their age. A proxy that
// has an older one has none of them.
const versionsKept = 32

// version is one that a view had, by when it was given it.
type version struct {
	name string
	seq  uint64
}

// makes notes that a view is made in a version, the newest.
func (k *keptView) makes(name string, seq uint64) {
	k.newest = name
	k.gives(name, seq)
}

// gives notes that proxies may have a version of a view, which is what was made at seq.
func (k *keptView) gives(name string, seq uint64) {
	k.given = slices.DeleteFunc(k.given, func(old version) bool { return old.name == name }) // it is a new one now
	if len(k.given) == versionsKept {
		k.given = slices.Delete(k.given, 0, 1)
	}
	k.given = append(k.given, version{name, seq})
}

// departed notes which endpoints that callers were sent to are not in what views are made
// of from now on. The caller holds mu.
func (v *Views) departed(in nodeInputs) {
	if v.at.model == nil {
		return
	}
	v.left.Forget()
	for _, node := range in.endpoints.Differ(v.at.endpoints) {
		for _, e := range v.at.endpoints.Of(node) {
			if at := (departed.Place{Node: node, Address: e.Address}); e.Healthy && !in.sendsTo(at) {
				v.left.Leave(e.Agent, at, v.seq)
			}
		}
	}
}

// sendsTo reports whether callers are sent to a place.
func (in nodeInputs) sendsTo(at departed.Place) bool {
	for _, e := range in.endpoints.Of(at.Node) {
		if e.Address == at.Address && e.Healthy {
			return true
		}
	}
	return false
}

// Without reports whether nobody is sent to an address of a virtual node any more (R11): no
// healthy proxy is registered there, the views of all who call the node are made without
// it, and every agent here whose proxies follow one says that these have taken it. Ask
// again when Heard is closed, and bound that: a proxy that takes nothing holds it up, and so
// does an agent that lies. A proxy whose agent is not connected is not waited for.
func (v *Views) Without(node proxy.Ref, address string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := departed.Place{Node: node, Address: address}
	if v.source.Look().nodeInputs().sendsTo(at) || v.at.model != nil && v.at.sendsTo(at) {
		return false
	}
	went, ok := v.left.Since(at)
	if !ok { // nobody was sent there, or long ago
		return true
	}
	callers := map[proxy.Ref]bool{}
	for n := range v.at.model.Graph().Reaching(mesh.NodeName(node)) {
		callers[n.Ref] = true
	}
	for _, list := range v.heard.All() {
		for _, f := range list {
			if f.Proxies > 0 && callers[f.Node] && !v.hasSince(f, went) {
				return false
			}
		}
	}
	return true
}

// hasSince reports whether what proxies have of a view is its latest, or was given after seq.
// The caller holds mu.
func (v *Views) hasSince(f Following, seq uint64) bool {
	for key := range v.shapes[f.Node] {
		k := v.nodes[key]
		if f.Version != "" && k.newest == f.Version {
			return true
		}
		for _, g := range k.given {
			if g.name == f.Version && g.seq > seq {
				return true
			}
		}
	}
	return false
}

// Mark makes the views of everything that is stored, and returns the moment: who has what is
// given from then on has that.
func (v *Views) Mark(ctx context.Context) (since uint64) {
	v.Rebuild(ctx, nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seq
}

// Reached reports whether all proxies of a virtual node at an agent have, by its word, what there
// was at a moment or came later, and what of what is made now they refused, or are not sent since
// others did. Ask again when Heard is closed.
func (v *Views) Reached(agent string, of proxy.Ref, since uint64) (has bool, rejected []*api.ResourceStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	some, all, now := false, true, v.offerOf(of)
	for _, f := range v.heard.Of(agent) {
		if f.Node != of || f.Proxies == 0 {
			continue
		}
		some, all = true, all && v.hasSince(f, since)
		for _, j := range f.Rejected {
			if v.refusable(of, now).Offered(j.GetTypeUrl(), j.GetName(), j.GetVersion()) {
				rejected = append(rejected, j)
			}
		}
		for _, r := range v.withheldFrom(agent, of, "", f.Envoy) {
			j := &api.ResourceStatus{TypeUrl: r.Type, Name: r.Name, Version: r.Version, Message: r.Message}
			if r.Agent != agent {
				j.Message = refusedElsewhere(r)
			}
			rejected = append(rejected, j)
		}
	}
	return some && all, rejected
}

// Settled reports whether no change of a virtual node is on its way from host to host, and what
// agents said of it was followed: before, another host may yet be asked to try it.
func (v *Views) Settled(of proxy.Ref) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rollouts[of] != nil {
		return false
	}
	for _, list := range v.heard.New() {
		if slices.ContainsFunc(list, func(f Following) bool { return f.Node == of }) {
			return false
		}
	}
	return true
}
