// Package conns is how many connections the agents' port has, and of whom: strangers, those
// whose certificate or token is good, and agents, each with bounds of its own, so that
// whoever fills one takes nothing from the others.
//
// It must not know how a caller proves who it is: it is told that a connection's handshake
// is complete, that a good token was shown on it, and which agent called on it.
//
// Main types: [Listener], [Conn] (one of its connections), [Limits].
//
// # Concurrency
//
// A Listener and its connections are safe for any number of goroutines; one lock of the
// Listener is held for a look or a change in memory.
package conns
