// Package fleet is who there is now: which agents are connected and as which run, what they
// report, and where the proxies of each virtual node listen.
//
// It must not know what is stored about a mesh (whether an agent may host a virtual node
// is asked of [Hosts]), what anybody is told because of it (who makes views reads a
// [Registered] snapshot), or how a caller proves who it is: a [Peer] was let in.
//
// Main types: [Known] (what all servers know of the fleet, as one value), [Sessions] (who
// is connected: reports up, questions down), [Instances] (one run of an agent at a time),
// [Endpoints] (what [Sessions] hands on: who listens where), [Status] (what is known of one
// agent).
//
// # Concurrency
//
// All are safe for any number of goroutines. What is handed out is immutable: a
// [Registered] snapshot, a report. Which lock is taken before which stands on [Sessions]
// and [Endpoints].
package fleet
