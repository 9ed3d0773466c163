package views

import (
	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/refused"
)

// Following is what the proxies of one host have of a virtual node's view, as their agent
// says.
type Following struct {
	Node     proxy.Ref
	Version  string // of the view that all of them have answered last, "" for none
	Proxies  int
	Envoy    string                // their version
	Rejected []*api.ResourceStatus // of what they were sent last
}

// Reported takes what an agent says of the views of virtual nodes that it may follow, in
// place of what it said before. It never waits.
func (v *Views) Reported(agent string, list []Following) { v.heard.Say(agent, list) }

// Left forgets what an agent said, unless it is connected again.
func (v *Views) Left(agent string, connected func() bool) { v.heard.Forget(agent, connected) }

// Heard is closed at the next thing that an agent says of its views.
func (v *Views) Heard() <-chan struct{} { return v.heard.Changed() }

// offer is what proxies of a virtual node have, or are to have, at the time at which agents are
// heard: looked up once, however much these say of it.
type offer struct {
	sets  map[string][]offered // by the version of the view
	known *refused.Known       // nil until something is refused
}

// offered is a set that proxies of a view have or try.
type offered struct {
	key Key
	k   *keptView
	set *ads.Set
}

func (v *Views) offerOf(node proxy.Ref) *offer {
	of := &offer{sets: map[string][]offered{}}
	for key := range v.shapes[node] {
		k := v.nodes[key]
		sets := []*ads.Set{k.view.Set()}
		if r := v.rollouts[node]; r != nil && r.key == key {
			sets = append(sets, r.set)
		}
		for _, set := range sets {
			of.sets[viewVersion(set)] = append(of.sets[viewVersion(set)], offered{key, k, set})
		}
	}
	return of
}

// refusable completes an offer with what can be refused of it.
func (v *Views) refusable(node proxy.Ref, of *offer) *refused.Known {
	if of.known != nil {
		return of.known
	}
	of.known = refused.NewKnown(formOf)
	for _, sets := range of.sets {
		for _, o := range sets {
			of.known.Offer(o.set)
			of.known.Take(o.key.Shape.EnvoyVersion, o.k.good)
		}
	}
	if r := v.rollouts[node]; r != nil {
		for _, made := range r.made {
			of.known.Offer(made)
		}
	}
	return of.known
}

// refuses takes what an agent says that its proxies refused, as far as it is what their
// views have, and returns what is new of it, as far as room takes it.
func (v *Views) refuses(agent string, f Following, of *offer, room func(agent string) bool) (found []refused.Refusal) {
	if len(f.Rejected) == 0 || !v.runs(agent, f) {
		return nil
	}
	known := v.refusable(f.Node, of)
	for _, j := range f.Rejected {
		at, ok := known.Refusable(j.GetTypeUrl(), j.GetName(), j.GetVersion(), f.Envoy)
		if !ok || v.refused[f.Node].Has(at, agent, f.Envoy) || proxy.OfItsHost(j.GetMessage()) || !room(agent) {
			continue // who refuses it keeps what it had, and its agent reports that
		}
		found = append(found, v.refuse(refused.Refusal{
			Node: f.Node, Agent: agent, Envoy: f.Envoy, Type: at.Type, Name: at.Name, Version: j.GetVersion(), Form: at.Form, Message: plain.Text(j.GetMessage()),
		}))
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

// answered notes which sets are known to be good: all of what was answered, less what was
// refused, in the place of which the proxies have what they had. What is good holds over
// whoever refuses it.
func (v *Views) answered(f Following, of *offer) {
	if f.Proxies == 0 || f.Version == "" {
		return
	}
	for _, o := range of.sets[f.Version] {
		if len(v.refused[f.Node]) > 0 {
			v.overrule(o.key, o.set, f.Rejected, v.refusable(f.Node, of).Form)
		}
		switch {
		case len(f.Rejected) == 0:
			o.k.good = o.set
		case o.k.good != nil && viewVersion(o.k.good) != f.Version: // else others have answered more of it
			o.k.good = o.set.Withhold(f.refused(o.k.good), o.k.good)
		}
		if of.known != nil {
			of.known.Take(o.key.Shape.EnvoyVersion, o.k.good)
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
