package server

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/store"
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

// placed is the group of a host that joined by evidence of its own. Where there is
// none, fix is the command that mends it.
func (m *model) placed(g store.Agent) (group, fix string, err error) {
	has, err := identity.ParseSelectors(g.Selectors)
	if err == nil {
		group, err = m.groupOf(nodes.Node{Selectors: has})
	}
	fix = "signet apply -f <file with a NodeGroup whose selectors the host has all of, and which is the only one>"
	if fit := m.fitting(has); len(fit) > 1 {
		fix = "signet get nodegroups -o yaml; change the selectors of, or delete, all but one of: " + strings.Join(fit, ", ")
	}
	return group, fix, err
}

// mostCutOff is how many hosts are named that a change leaves in no group; more are counted.
const mostCutOff = 5

// cutOff warns of the hosts that are in a group before a change of NodeGroups, and in
// none after it. hosts are those whose selectors decide.
func cutOff(before, after *model, hosts []store.Agent) []string {
	if slices.EqualFunc(before.selecting, after.selecting, func(x, y identity.NodeGroup) bool {
		return x.Name == y.Name && slices.Equal(x.Selectors, y.Selectors)
	}) {
		return nil
	}
	var list []string
	more := 0
	for _, g := range hosts {
		group, _, was := before.placed(g)
		_, _, err := after.placed(g)
		switch {
		case g.Banned || was != nil || err == nil:
		case len(list) == mostCutOff:
			more++
		default:
			list = append(list, fmt.Sprintf("agent %s (%s), in group %s now, would be in no group: %v; its workloads and proxies would get no certificates, and its proxies no calls", g.ID, plain.Text(g.Hostname), group, err))
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("%d more agents would be in no group", more))
	}
	return list
}
