package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
)

// told is what an agent's view is made of except its own name: the version of what
// its group is told, and the policy revision in force.
type told struct{ set, policy string }

func (in inputs) told(all *ads.Set) told { return told{all.Version(), in.policy.current.GetId()} }

// buildGroup is what the agents of a group are told: what they may be, and what
// they authorize by.
func (v *views) buildGroup(in inputs, group string) (*ads.Set, error) {
	grants, err := grantsOf(in.model, group)
	if err != nil {
		return nil, err
	}
	var rs []*ads.Resource
	add := func(typeURL, name string, m proto.Message) {
		var r *ads.Resource
		if err == nil {
			if r, err = ads.NewResource(typeURL, name, m); err == nil {
				rs = append(rs, r)
			}
		}
	}
	for _, g := range grants {
		add(ads.EntryType, g.name, g.message())
	}
	add(ads.BundleType, v.td.IDString(), in.roots.bundle())
	for _, rev := range in.policy.keep {
		add(ads.PolicyType, rev.GetId(), rev)
	}
	for _, is := range in.issuers {
		add(ads.JWTIssuerType, is.GetName(), is)
	}
	for _, a := range v.roster.all() {
		if banned, idErr := identity.ForAgent(v.td, a.ID); a.Banned && idErr == nil {
			add(ads.BanType, banned.String(), &api.Ban{SpiffeId: banned.String()})
		}
	}
	if err != nil {
		return nil, err
	}
	return ads.NewSet(rs...)
}

// grant is an identity that workloads on hosts of a group may hold: from an Entry,
// or from a Binding for a virtual node's proxy.
type grant struct {
	// name is that of the Entry resource: an Entry's own, or "binding/<name>", which
	// no Entry can have.
	name string
	// entry has the identity, the selectors and the lifetime.
	entry identity.Entry
	node  *api.VirtualNodeRef
	// applications of a Binding.
	applications []string
	// since is the revision in which Entry or Binding was first there.
	since uint64
}

func (g grant) message() *api.Entry {
	m := &api.Entry{
		Name: g.name, SpiffeId: g.entry.ID.String(), Selectors: g.entry.Selectors.Strings(), VirtualNode: g.node, Applications: g.applications,
		Since: g.since, Hint: g.entry.Hint,
	}
	if g.entry.TTL > 0 {
		m.Ttl = durationpb.New(g.entry.TTL)
	}
	return m
}

// grantsOf lists what hangs on a group.
func grantsOf(m *model, group string) ([]grant, error) {
	var list []grant
	for _, e := range m.entries {
		if e.Group == group {
			list = append(list, grant{name: e.Name, entry: e, since: m.since(kindEntry, e.Name)})
		}
	}
	for _, b := range m.bindings {
		if b.Group != group {
			continue
		}
		id, err := b.ID(m.td)
		if err != nil {
			return nil, fmt.Errorf("binding %s: %w", b.Name, err)
		}
		list = append(list, grant{
			name:  "binding/" + b.Name,
			entry: identity.Entry{Name: b.Name, Group: b.Group, ID: id, Selectors: b.Selectors},
			node:  &api.VirtualNodeRef{Mesh: b.Mesh, Name: b.VirtualNode}, applications: b.Applications.Strings(),
			since: m.since(kindBinding, b.Name),
		})
	}
	return list, nil
}

func (m *model) since(kind, name string) uint64 {
	return m.objects[objectKey{kind: kind, name: name}].created
}
