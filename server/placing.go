package server

import (
	"slices"
	"strings"

	"signet.example/attestation/nodes"
	"signet.example/identity"
)

// groupOf is the group that evidence leads to: the one that it names, or the one
// NodeGroup whose selectors the host has. Where none fits, or several do, the host gets
// none, and an error that names what it has: which of two is meant nobody can say, as
// with bindings (D6).
func (m *model) groupOf(n nodes.Node) (string, error) {
	if n.Group != "" {
		if !m.hasGroup(n.Group) {
			return "", reason(errDenied, "the node group of this token was deleted; mint a new token")
		}
		return n.Group, nil
	}
	fit := m.fitting(n.Selectors)
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return "", reason(errDenied, "no NodeGroup's selectors fit this host, which has %s", plainText(strings.Join(n.Selectors.Strings(), ", ")))
	}
	return "", reason(errDenied, "the selectors of NodeGroups %s all fit this host: it is in none until they exclude each other", plainText(strings.Join(fit, ", ")))
}

// fitting names the NodeGroups whose selectors a host has, in order.
func (m *model) fitting(has identity.Selectors) []string {
	var names []string
	for _, g := range m.selecting {
		if g.Fits(has) {
			names = append(names, g.Name)
		}
	}
	return names
}

// place is the group of a host by its selectors alone, for roster.place; "" where none
// fits or several do.
func (s *server) place(selectors []string) string {
	m := s.model()
	has, err := identity.ParseSelectors(selectors)
	if m == nil || err != nil { // not read yet; or stored by nobody
		return ""
	}
	if fit := m.fitting(has); len(fit) == 1 {
		return fit[0]
	}
	return ""
}

// sameGroups reports whether two lists put every host into the same group.
func sameGroups(a, b []identity.NodeGroup) bool {
	return slices.EqualFunc(a, b, func(x, y identity.NodeGroup) bool {
		return x.Name == y.Name && slices.Equal(x.Selectors, y.Selectors)
	})
}
