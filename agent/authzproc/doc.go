// Package authzproc is the process that decides, at both of its ends: the agent's, which
// starts it, tells it what to decide by, hands it the connections of attested proxies
// and keeps its records ([Process], [Gate]); and its own ([Run]), which has no key and
// no socket but those connections.
//
// It owns the two processes' protocol (handover.go, convert.go), what is remembered of
// decisions (ring.go), and what is concluded when the process ends (journal.go,
// blame.go). How a decision is made is authz's; it must not know how proxies get their
// configuration: who needs which policy revision is told to it (Process.Stamp).
//
// # Concurrency
//
// Process.Run owns one process at a time with its goroutines, and waits for them. The
// way to the running process (handoverTo) has a lock of its own: a connection is handed
// over, and what it was granted by is looked at, under it. In the process itself the
// lock of the decider guards what is compiled, and is held over no decision.
package authzproc
