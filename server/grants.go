package server

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/server/kinds"
)

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
		m.VirtualNode, m.Applications = &api.VirtualNodeRef{Mesh: v.VirtualNode.Mesh, Name: v.VirtualNode.Name}, v.Applications.Strings()
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
