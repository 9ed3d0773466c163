package groups

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
)

// Grant is an identity that workloads on hosts of a group may hold: from an Entry,
// or from a Binding for a virtual node's proxy. Immutable.
type Grant struct {
	// Name is that of the Entry resource: an Entry's own, or "binding/<name>", which
	// no Entry can have.
	Name string
	// Entry has the identity, the group, the selectors and the lifetime.
	Entry identity.Entry
	// Binding is nil for an Entry.
	Binding *identity.Binding
	// Resource is the grant as agents are told.
	Resource *ads.Resource
}

// NewGrant is what an Entry or a Binding grants, nil for another value, which grants
// nothing. since is the revision in which it was first there.
func NewGrant(value any, since uint64, td spiffeid.TrustDomain) (*Grant, error) {
	m := &api.Entry{Since: since}
	var g *Grant
	switch v := value.(type) {
	case identity.Entry:
		g = &Grant{Name: v.Name, Entry: v}
	case identity.Binding:
		id, err := v.ID(td)
		if err != nil {
			return nil, fmt.Errorf("binding %s: %w", v.Name, err)
		}
		g = &Grant{Name: bindingPrefix + v.Name, Binding: &v, Entry: identity.Entry{Name: v.Name, Group: v.Group, ID: id, Selectors: v.Selectors}}
		m.VirtualNode, m.Applications = &api.VirtualNodeRef{Mesh: v.VirtualNode.Mesh, Name: v.VirtualNode.Name, Gateway: v.VirtualNode.Gateway}, v.Applications.Strings()
	default:
		return nil, nil
	}
	m.Name, m.SpiffeId, m.Selectors, m.Hint = g.Name, g.Entry.ID.String(), g.Entry.Selectors.Strings(), g.Entry.Hint
	if g.Entry.TTL > 0 {
		m.Ttl = durationpb.New(g.Entry.TTL)
	}
	if f := g.Entry.Files; f != nil {
		m.Files = &api.EntryFiles{Folder: f.Folder, Group: f.Group, Layouts: f.Layouts, Command: f.Command}
	}
	var err error
	g.Resource, err = ads.NewResource(ads.EntryType, g.Name, m)
	return g, err
}

// bindingPrefix is of the names of grants that come from Bindings.
const bindingPrefix = "binding/"
