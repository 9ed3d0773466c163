package server

import (
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/server/fault"
	"signet.example/server/model"
)

// groupOf is the group that evidence leads to: the one that it names, or the one
// NodeGroup whose selectors the host has. A task that is in none tries again: one that was
// forgotten and joins anew would take a denial for a ban, and end with its proxies.
func groupOf(m *model.Model, n nodes.Node) (string, error) {
	if n.Group == "" {
		group, err := m.Groups().Placing.Group(n.Selectors)
		if err != nil && nodes.Ends(n.Method) {
			return "", fault.New(fault.Unavailable, "%v", err)
		}
		return group, err
	}
	if !m.HasGroup(n.Group) {
		return "", fault.New(fault.Denied, "the node group of this token was deleted; mint a new token")
	}
	return n.Group, nil
}

// place is the group of a host by its selectors alone, for the roster; "" where none
// fits or several do.
func (s *server) place(selectors []string) string {
	m := s.model()
	has, err := identity.ParseSelectors(selectors)
	if m == nil || err != nil { // not read yet; or stored by nobody
		return ""
	}
	if fit := m.Groups().Placing.Fitting(has); len(fit) == 1 {
		return fit[0]
	}
	return ""
}
