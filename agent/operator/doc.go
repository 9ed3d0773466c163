// Package operator is what operators of a host ask its agent by Unix sockets that root and the
// agent's own user alone can open: what the agent sees of a process, which Entries and Bindings fit
// it, which nearly do and why it is given nothing; and, in a task, to stop. agent/local has the
// client, and what is asked and answered.
//
// It must not decide who is given what: it asks attestation and resources, as whoever serves the
// process does.
//
// Main types in reading order: Listeners, Stop, Explainer.
//
// # Concurrency
//
// All types can be used by several goroutines. Nothing is started but what the HTTP server
// starts, which ends with the Serve that began it.
package operator
