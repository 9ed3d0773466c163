package server

import (
	"fmt"
	"strings"

	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/store"
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

// placed is the group of a host that joined by evidence of its own. Where there is
// none, fix is the command that mends it.
func (m *model) placed(g store.Agent) (group, fix string, err error) {
	has, err := identity.ParseSelectors(g.Selectors)
	if err == nil {
		group, err = m.groups.Placing.Group(has)
	}
	fix = "signet apply -f <file with a NodeGroup whose selectors the host has all of, and which is the only one>"
	if fit := m.groups.Placing.Fitting(has); len(fit) > 1 {
		fix = "signet get nodegroups -o yaml; change the selectors of, or delete, all but one of: " + strings.Join(fit, ", ")
	}
	return group, fix, err
}

// mostCutOff is how many hosts are named that a change leaves in no group; more are counted.
const mostCutOff = 5

// cutOff warns of the hosts that are in a group before a change of NodeGroups, and in
// none after it. hosts are those whose selectors decide.
func cutOff(before, after *model, hosts []store.Agent) []string {
	if before.groups.Placing.Same(after.groups.Placing) {
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
