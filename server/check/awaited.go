package check

import (
	"fmt"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/kinds"
)

// awaited is about virtual nodes whose Binding does not count yet: whoever applied it may take their calls
// for encrypted. It goes when callers are told to call what is registered, not when a proxy is READY.
func (l Look) awaited() (list []*api.Finding) {
	for node := range l.Awaited.All() {
		if !l.Awaited.Awaits(node, l.Endpoints.Ready) {
			continue
		}
		why, fix := l.awaits(node)
		list = append(list, finding(findAwaited, sevWarning, kinds.Node(node).String(), fix,
			"a Binding names it, and %s: its callers go on as before, by its service discovery, and in plaintext where neither its listener nor their client policy asks for TLS", why))
	}
	return list
}

// awaits is what a virtual node lacks for its Binding to count, and what to do about that.
func (l Look) awaits(node proxy.Ref) (why, fix string) {
	if len(l.Endpoints.Of(node)) > 0 {
		return "since then no application behind a proxy of it has passed its health check",
			"wait until it passes, which takes healthyThreshold times intervalMillis where it starts after its proxy, before the name of the node leads to the proxy; signet proxies says at which port it fails"
	}
	return "none of its proxies has been ready since",
		fmt.Sprintf("start a proxy of %s/%s: `signet agent` on a host whose group has a Binding for it; signet proxies", node.Mesh, node.Name)
}
