// Package store keeps what the control plane must not forget: the objects of
// the mesh and the registry, join tokens, agents, policy revisions and the
// audit trail, in one SQLite file. It owns the revision: every configuration
// write takes the next number, without gaps, in its own transaction, and leaves
// its rows in the changes outbox under that number.
//
// It must not know what a manifest means: objects are bytes under (kind, mesh,
// name). It never makes a database that should have been there: only Create does.
//
// Main types in order: Store; Object and Write (Apply, Objects); Change
// (Changes, Wait); Agent; PolicyRow; AuditRow.
//
// # Concurrency
//
// A Store may be used from any number of goroutines. There is one writing
// connection, so writes queue; reads have their own connections and see the
// last committed state. Wait is woken in process, after the commit.
package store
