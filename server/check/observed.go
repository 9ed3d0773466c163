package check

import (
	"fmt"
	"strings"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/kinds"
)

// observed are the findings of a mesh whose policy denies nothing: one of all of it, or else one
// of each node.
func observed(g *mesh.Graph, name string) []*api.Finding {
	const fix = "see `signet decisions --denied`, and `signet policy init` for rules to begin with; when nothing is there that has to pass, "
	if g.Observes(name) {
		n := 0
		for _, node := range g.Nodes(name) {
			if node.Observed {
				n++
			}
		}
		return []*api.Finding{finding(findObserved, sevWarning, "MeshOptions "+name, fix+"apply it whole, with authorization: enforce beside what else it has (signet get meshoptions "+name+" -o yaml)",
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

// fewNamed are named each where the policy loosens or tightens; more are counted.
const fewNamed = 5

// loosened warns of those whose policy does not deny any more after a change, whatever it
// changes: to delete the options of one that enforced says so nowhere else.
func loosened(before, after *mesh.Graph) []string {
	return ofSome(after.Loosened(before), "from here on the policy only observes, and denies nothing, at %s: authorization: enforce in the options of these, or of their mesh, has it deny")
}

// tightened warns of those whose policy begins to deny: that is in no route, and so not in what is
// foretold of requests.
func tightened(before, after *mesh.Graph) []string {
	return ofSome(before.Loosened(after), "from here on what the policy denies is denied at %s, which only observed: `signet decisions --denied` lists what they let through")
}

// ofSome is a warning that names some; none of nobody.
func ofSome(list []proxy.Ref, warning string) []string {
	if len(list) == 0 {
		return nil
	}
	var names []string
	for _, ref := range list[:min(len(list), fewNamed)] {
		names = append(names, kinds.Node(ref).String())
	}
	where := strings.Join(names, ", ")
	if more := len(list) - len(names); more > 0 {
		where += fmt.Sprintf(" and %d more", more)
	}
	return []string{fmt.Sprintf(warning, where)}
}
