package check

import (
	"fmt"

	"signet.example/api"
	"signet.example/server/kinds"
)

// awaited is about virtual nodes whose Binding does not count yet: whoever applied it may take their calls
// for encrypted.
func (l Look) awaited() (list []*api.Finding) {
	for node := range l.Awaited.All() {
		if l.Awaited.Awaits(node, l.Endpoints.Ready) {
			list = append(list, finding(findAwaited, sevWarning, kinds.Node(node).String(),
				fmt.Sprintf("start a proxy of %s/%s: `signet agent` on a host whose group has a Binding for it; signet proxies", node.Mesh, node.Name),
				"a Binding names it, and none of its proxies has been ready since: its callers go on as before, by its service discovery, and in plaintext where neither its listener nor their client policy asks for TLS"))
		}
	}
	return list
}
