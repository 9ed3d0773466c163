// Package envoy runs the Envoys of a host: it starts each one when there is
// something to send it, looks whether it is well, restarts it, and drains it.
//
// It owns the process (its bootstrap, user, admin socket and output) and what is
// read of it: readiness, the health of its application, the certificate that it serves, its key exchanges, and the
// denials that it made by itself. It must not know where configuration comes from:
// [Views] are handed in, and everything except the way to them reaches Envoy over ADS.
//
// A [Supervisor] made by [New] from a [Config] is the whole: Run, Change and Status.
//
// # Concurrency
//
// Supervisor.Run owns one goroutine for each [Proxy], which runs one process at a time,
// and returns when all have ended. Supervisor.mu guards the list of them; no method of
// what is handed in is called while it is held.
package envoy
