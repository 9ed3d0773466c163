package server

import (
	"signet.example/attestation/nodes"
	"signet.example/server/fault"
)

// groupOf is the group that evidence leads to: the one that it names, or the one
// NodeGroup whose selectors the host has.
func (m *model) groupOf(n nodes.Node) (string, error) {
	if n.Group == "" {
		return m.groups.Placing.Group(n.Selectors)
	}
	if !m.hasGroup(n.Group) {
		return "", fault.New(fault.Denied, "the node group of this token was deleted; mint a new token")
	}
	return n.Group, nil
}
