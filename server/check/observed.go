package check

import (
	"fmt"
	"strings"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/server/kinds"
)

// observed are the findings of a mesh whose policy denies nothing: one of all of it, or else one
// of each node.
func observed(g *mesh.Graph, name string) []*api.Finding {
	const fix = "see `signet decisions --denied`; when nothing is there that has to pass, "
	if g.Observes(name) {
		n := 0
		for _, node := range g.Nodes(name) {
			if node.Observed {
				n++
			}
		}
		return []*api.Finding{finding(findObserved, sevWarning, "MeshOptions "+name, fix+"apply it with authorization: enforce",
			"nothing that the policy denies is denied at %d of the %d virtual nodes and gateways of mesh %s, only recorded", n, len(g.Nodes(name)), name)}
	}
	var list []*api.Finding
	for _, node := range g.Nodes(name) {
		if node.Observed {
			list = append(list, finding(findObserved, sevWarning, kinds.Node(node.Ref).String(), fix+"take authorization: observe out of its options",
				"nothing that the policy denies is denied here, only recorded"))
		}
	}
	return list
}

// fewLoosened are named each; more are counted.
const fewLoosened = 5

// loosened warns of those whose policy does not deny any more after a change, whatever it
// changes: to delete the options of one that enforced says so nowhere else.
func loosened(before, after *mesh.Graph) []string {
	list := after.Loosened(before)
	if len(list) == 0 {
		return nil
	}
	var names []string
	for _, ref := range list[:min(len(list), fewLoosened)] {
		names = append(names, kinds.Node(ref).String())
	}
	where := strings.Join(names, ", ")
	if more := len(list) - len(names); more > 0 {
		where += fmt.Sprintf(" and %d more", more)
	}
	return []string{"from here on the policy only observes, and denies nothing, at " + where + ": authorization: enforce in the options of these, or of their mesh, has it deny"}
}
