// Package admin is what an operator asks and changes over the admin socket. All of it is in
// the audit trail before it is done.
//
// It must not know how anything is stored, followed or served: it has [Stored], whose
// [Change] is made by steps of which each is a type that only the one before gives, the
// [Fleet], the [Certificates] of the log, and functions for what is wrong. Nor does it know
// how a decision is made: agents are asked ([Sessions]).
//
// # Concurrency
//
// A [Server] has no state and no lock: what is asked of it waits in what it asks.
package admin
