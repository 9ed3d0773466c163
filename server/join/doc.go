// Package join is how a host becomes an agent, and how an agent that was one comes back:
// evidence of the host is paid for, verified, and leads to an identity, once.
//
// It must not know which kinds of evidence there are (attestation/nodes), what a
// certificate looks like or how it is made ([SVIDs] does), or how the host's key was
// proven: a [Caller] has what the handshake of its connection proved, and nothing else.
//
// Main type: [Desk]. Its parts are interfaces that stand beside it: [Evidence], [Agents],
// [Stored], [Instances], [SVIDs], [Limits] and [Lanes].
//
// # Concurrency
//
// A Desk has no state of its own and no lock. It may be used from any number of goroutines.
// That one token and one host key make one agent is held by what the store does in one
// transaction, behind Evidence and Agents.
package join
