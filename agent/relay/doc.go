// Package relay passes the servers' views of virtual nodes on to the proxies of a
// host, each with the secrets of the identity that its binding grants.
//
// It owns who is given which view (the peer's attestation decides, its node id selects
// among what it is bound to), the streams to the servers from which the views are made
// (one for each virtual node and shape: a subscription), when a set is released to the
// proxies, and which address belongs to which proxy. It must not know what is in a set
// beyond its listeners' addresses, nor how an SVID is issued or a decision made.
//
// A [Relay] made by [New] from a [Config] implements ads.Views; [View] is what the
// proxies of one binding and shape are sent; [Relay.Guard] stands before each stream.
//
// # Concurrency
//
// Relay.Run owns the goroutines of subscriptions and views, and waits for them. Locks
// are taken in the order Relay.mu, View.claims, addresses.mu, and none is held while
// something is waited for; but who holds Relay.mu may hand a function to Run, which
// takes no lock. A guard's own lock is taken last.
package relay
