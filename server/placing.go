package server

import (
	"context"
	"strings"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
)

// groupOf is the group that evidence leads to: the one that it names, or the one
// NodeGroup whose selectors the host has. Where none fits, or several do, the host gets
// none, and an error that names what it has: which of two is meant nobody can say, as
// with bindings (D6).
func (m *model) groupOf(n nodes.Node) (string, error) {
	if n.Group != "" {
		if !m.hasGroup(n.Group) {
			return "", fault.New(fault.Denied, "the node group of this token was deleted; mint a new token")
		}
		return n.Group, nil
	}
	fit := m.fitting(n.Selectors)
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return "", fault.New(fault.Denied, "no NodeGroup's selectors fit this host, which has %s", plain.Text(strings.Join(n.Selectors.Strings(), ", ")))
	}
	return "", fault.New(fault.Denied, "the selectors of NodeGroups %s all fit this host: it is in none until they exclude each other", plain.Text(strings.Join(fit, ", ")))
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

// checkGroups is about hosts that have joined and are in no group: their NodeGroups
// were changed since.
func (a *admin) checkGroups(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, g := range a.roster.All() {
		if g.Group != "" || g.Banned {
			continue
		}
		has, err := identity.ParseSelectors(g.Selectors)
		if err == nil {
			_, err = a.model().groupOf(nodes.Node{Selectors: has})
		}
		if err == nil { // it is in one by now
			continue
		}
		list = append(list, finding(findNoGroup, sevError, a.agentSPIFFE(g.ID), "signet apply -f <file with a NodeGroup whose selectors are all among these, and which is the only one>",
			"its workloads and proxies get no certificates: %v", err))
	}
	return list
}
