package server

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/server/kinds"
)

// told is what an agent's view is made of except its own name: the version of what
// its group is told, and the policy revision in force.
type told struct{ set, policy string }

func (in inputs) told(all *ads.Set) told { return told{all.Version(), in.policy.current.GetId()} }

// agentInputs is what all agents' views are made of. Equal inputs give equal views.
type agentInputs struct {
	roster  uint64
	hanging ordered.Map[ordered.String, *group]
	toAll   *toAll
}

// toAll is what every agent is told, whatever its group, and what that was made of.
// Another one is another pointer.
type toAll struct {
	signed    []byte // root set
	keep      []*api.PolicyRevision
	current   string // revision
	issuers   []*api.JWTIssuer
	bans      []string // ids of agents
	resources []*ads.Resource
}

// toldGroup is what the agents of a group are told, and what that was made of.
type toldGroup struct {
	grants ordered.Map[ordered.String, *grant]
	toAll  *toAll
	set    *ads.Set
}

// common is what every agent is told, made again only where it is another.
func (v *views) common(in inputs) (*toAll, error) {
	all := &toAll{signed: in.roots.signed, keep: in.policy.keep, current: in.policy.current.GetId(), issuers: in.issuers, bans: v.roster.Banned()}
	if old := v.toAll; old != nil && bytes.Equal(old.signed, all.signed) && slices.Equal(old.keep, all.keep) && old.current == all.current &&
		slices.EqualFunc(old.issuers, all.issuers, func(a, b *api.JWTIssuer) bool { return proto.Equal(a, b) }) && slices.Equal(old.bans, all.bans) {
		return old, nil
	}
	var err error
	add := func(typeURL, name string, m proto.Message) {
		var r *ads.Resource
		if err == nil {
			if r, err = ads.NewResource(typeURL, name, m); err == nil {
				all.resources = append(all.resources, r)
			}
		}
	}
	add(ads.BundleType, v.td.IDString(), in.roots.bundle())
	for _, rev := range all.keep {
		add(ads.PolicyType, rev.GetId(), rev)
	}
	for _, is := range all.issuers {
		add(ads.JWTIssuerType, is.GetName(), is)
	}
	for _, id := range all.bans {
		if banned, idErr := identity.ForAgent(v.td, id); idErr == nil {
			add(ads.BanType, banned.String(), &api.Ban{SpiffeId: banned.String()})
		}
	}
	if err != nil {
		return nil, err
	}
	v.toAll = all
	return all, nil
}

// buildGroup is what the agents of a group are told: what they may be, and what
// they authorize by. It is made again only where one of the two is another.
func (v *views) buildGroup(in inputs, group string) (*ads.Set, error) {
	all, err := v.common(in)
	if err != nil {
		return nil, err
	}
	grants := in.model.group(group).grants
	if old, ok := v.byGroup[group]; ok && old.grants == grants && old.toAll == all {
		return old.set, nil
	}
	rs := slices.Clone(all.resources)
	for _, g := range grants.All() {
		rs = append(rs, g.resource)
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		return nil, err
	}
	v.byGroup[group] = toldGroup{grants, all, set}
	return set, nil
}

// grant is an identity that workloads on hosts of a group may hold: from an Entry,
// or from a Binding for a virtual node's proxy. Immutable.
type grant struct {
	// name is that of the Entry resource: an Entry's own, or "binding/<name>", which
	// no Entry can have.
	name string
	// entry has the identity, the selectors and the lifetime.
	entry identity.Entry
	// binding is nil for an Entry.
	binding *identity.Binding
	// resource is the grant as agents are told.
	resource *ads.Resource
}

// inGroup is of the group on which a grant hangs.
func (g *grant) inGroup() ordered.String { return ordered.String(g.entry.Group) }

// newGrant is what an object grants, nil for one that grants nothing.
func newGrant(o *kinds.Object, td spiffeid.TrustDomain) (*grant, error) {
	m := &api.Entry{Since: o.Created} // the revision in which it was first there
	var g *grant
	switch v := o.Value.(type) {
	case identity.Entry:
		g = &grant{name: v.Name, entry: v}
	case identity.Binding:
		id, err := v.ID(td)
		if err != nil {
			return nil, fmt.Errorf("binding %s: %w", v.Name, err)
		}
		g = &grant{name: "binding/" + v.Name, binding: &v, entry: identity.Entry{Name: v.Name, Group: v.Group, ID: id, Selectors: v.Selectors}}
		m.VirtualNode, m.Applications = &api.VirtualNodeRef{Mesh: v.Mesh, Name: v.VirtualNode}, v.Applications.Strings()
	default:
		return nil, nil
	}
	m.Name, m.SpiffeId, m.Selectors, m.Hint = g.name, g.entry.ID.String(), g.entry.Selectors.Strings(), g.entry.Hint
	if g.entry.TTL > 0 {
		m.Ttl = durationpb.New(g.entry.TTL)
	}
	var err error
	g.resource, err = ads.NewResource(ads.EntryType, g.name, m)
	return g, err
}
