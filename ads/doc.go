// Package ads speaks the xDS transport protocol, aggregated (ADS), in its
// delta and state-of-the-world variants, over go-control-plane's generated
// protobufs. Server and agent both serve with it: the server towards agents
// (Relay mode), the agent towards Envoy (Proxy mode). The agent's upstream leg
// is Client.
//
// It owns streams, subscriptions, nonces, acknowledgements, the order of
// pushes, and what is shared between streams. It must not know what a mesh, a
// virtual node or an SVID is: a Resource is a type, a name, a version and
// bytes. What it reads from Envoy's own messages is which endpoint assignment a
// Cluster needs, and whether a string in a message names a cluster (gate.go).
//
// Main types, in the order in which data passes them:
//
//   - Resource: one encoded message with its content-hash version.
//   - Set: an immutable collection of resources.
//   - View: what one kind of client sees; Publish swaps its Set.
//   - Views: the caller's function from a client's node to its View.
//   - Server: the gRPC service; one machine (machine.go) per stream.
//   - Client: the receiving end, delta only.
//   - Pool: interns equal resources of many Clients.
//
// # What Proxy mode guarantees
//
// Secrets, clusters and endpoints are sent as soon as they change and never
// wait for one another, as Envoy withholds the acknowledgement of clusters
// until none of them is warming and a cluster does not warm without its
// endpoints. Listeners and routes that name a new or changing cluster wait
// until it and its endpoints are acknowledged, so that no route names a cluster
// that cannot take a request; the others do not wait for its health checks.
// What disappears from clusters, endpoints and secrets is withdrawn last, once
// every stream of the view has acknowledged its listeners and routes. Both
// waits end after 5 s, with an Event of kind Stuck. Of several streams one has a
// new cluster, listener or route first (canary.go): the others have it when its
// client has answered, or after 1 s. A version that a proxy refused is not sent to
// proxies of the same version of the view again, and what the refused listeners
// and routes would have replaced keeps the clusters it needs.
//
// A route configuration should keep its name when its content changes. A
// listener that moves to another one, or goes, drains its old connections on
// the old routes; Server.Drain keeps their clusters for as long. Requests that
// were routed before a change wait for connections of the old cluster;
// Server.Linger keeps it for them.
//
// # Concurrency
//
// Resource and Set are immutable. A View is safe for concurrent use; Publish
// holds its lock only to swap pointers and wakes the streams after. A stream
// has two goroutines, the gRPC handler, which owns the machine and is the only
// sender, and one receiver; wake-ups coalesce, so a slow reader has at most
// one pass of frames pending and gets the latest state next. Nothing polls.
package ads
