package views

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
)

// madeOf is what an agent's view is made of except its own name: the version of what
// its group is told, and the policy revision in force.
type madeOf struct{ set, policy string }

func (in Look) madeOf(all *ads.Set) madeOf { return madeOf{all.Version(), in.Policy.Current.GetId()} }

// agentInputs is what all agents' views are made of. Equal inputs give equal views.
type agentInputs struct {
	roster uint64
	grants Grants
	toAll  *toAll
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

// groupSet is what the agents of a group are told, and what that was made of.
type groupSet struct {
	grants any // as Grants.Of says
	toAll  *toAll
	set    *ads.Set
}

// common is what every agent is told, made again only where it is another.
func (v *Views) common(in Look) (*toAll, error) {
	all := &toAll{signed: in.Roots.GetSignedRootSet(), keep: in.Policy.Keep, current: in.Policy.Current.GetId(), issuers: in.Issuers, bans: in.Banned}
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
	add(ads.BundleType, v.cfg.TrustDomain.IDString(), in.Roots)
	for _, rev := range all.keep {
		add(ads.PolicyType, rev.GetId(), rev)
	}
	for _, is := range all.issuers {
		add(ads.JWTIssuerType, is.GetName(), is)
	}
	for _, id := range all.bans {
		if banned, idErr := identity.ForAgent(v.cfg.TrustDomain, id); idErr == nil {
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
func (v *Views) buildGroup(in Look, group string) (*ads.Set, error) {
	all, err := v.common(in)
	if err != nil {
		return nil, err
	}
	grants, resources := in.Model.Grants().Of(group)
	if old, ok := v.byGroup[group]; ok && old.grants == grants && old.toAll == all {
		return old.set, nil
	}
	set, err := ads.NewSet(slices.AppendSeq(slices.Clone(all.resources), resources)...)
	if err != nil {
		return nil, err
	}
	v.byGroup[group] = groupSet{grants, all, set}
	return set, nil
}
