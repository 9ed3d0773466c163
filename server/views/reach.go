package views

import (
	"context"
	"slices"

	"signet.example/api"
	"signet.example/proxy"
)

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
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	some, all := false, true
	for _, f := range v.heard.by[agent] {
		if f.Node != of || f.Proxies == 0 {
			continue
		}
		some, all = true, all && v.hasSince(f, since)
		for _, j := range f.Rejected {
			if v.sent(of, j) != nil {
				rejected = append(rejected, j)
			}
		}
		for _, r := range v.withheldFrom(of, f.Envoy) {
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
	v.heard.mu.Lock()
	defer v.heard.mu.Unlock()
	for agent := range v.heard.news {
		if slices.ContainsFunc(v.heard.by[agent], func(f Following) bool { return f.Node == of }) {
			return false
		}
	}
	return true
}
