package check

import (
	"fmt"

	"signet.example/mesh"
)

// mostUnaddressed is how many services are named that a change leaves without an address; more
// are counted.
const mostUnaddressed = 20

// unaddressed warns of the services that a mesh with addresses gives none after a change, and that
// were not there before it, or had one.
func unaddressed(before, after Model) []string {
	var list []string
	for _, name := range after.Graph().Meshes() {
		for _, s := range after.Graph().Services(name) {
			by := misleading(after, s)
			if by == nil || before.Graph().Service(s.GraphName()) != nil && misleading(before, s) != nil {
				continue
			}
			list = append(list, fmt.Sprintf("virtual service %s/%s has no address: virtual node %s is found by DNS under the same name and no Binding names it, so that a proxy at that address would call itself; "+
				"bind a group to the node, which is then called at the endpoints that its agents register, or give it another dns.hostname", s.Mesh, s.Name, by.Name))
		}
	}
	if more := len(list) - mostUnaddressed; more > 0 {
		list = append(list[:mostUnaddressed], fmt.Sprintf("%d more virtual services have no address", more))
	}
	return list
}

// misleading is a node because of which a service has no address; nil where there is none.
func misleading(m Model, s *mesh.VirtualService) *mesh.VirtualNode {
	if list := m.Graph().Misleading(s.GraphName(), m.Groups().Hosts.Any); len(list) > 0 {
		return list[0]
	}
	return nil
}
