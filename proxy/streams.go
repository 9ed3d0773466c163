package proxy

// How many calls a proxy has under way on one connection to a socket of the agent.
// Envoy opens that many as soon as it is connected, before it has read how many the
// other end takes, and does not try again what is refused: so both ends know it
// beforehand, and the agent takes no less than is configured in the proxy.
const (
	// WayoutStreams is for wayout.sock, where an answer takes less than a millisecond
	// and each worker has one connection: those of a large proxy together stay within
	// what one process may have under way.
	WayoutStreams = 16
	// AuthzStreams is for authz.sock.
	AuthzStreams = 1024
)
