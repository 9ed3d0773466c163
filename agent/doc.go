// Package agent is the node agent: it joins a server, makes and keeps the
// private keys, and is the only thing that a local Envoy or application talks
// to, over Unix sockets.
//
// It owns the joining of the folders below it on a host: which SVIDs are kept
// fresh and when they are renewed, what each attested peer is given, the relay
// from the server's ADS streams to each proxy's, the authz process and the
// Envoys that it supervises. It must not know what a mesh is or how its
// resources are made (xds), nor how anything is signed (ca).
//
// Main types in order: [Config] and [Run] are what cmd sees, [RunAuthz] is the
// other process. Inside: enrolment joins and keeps the agent's own standing;
// upstream holds the connection and its streams; keeper keeps SVIDs; relay gives
// each proxy its view; authzProcess runs the deciding process and hands it
// connections; envoy supervises one proxy; session reports.
//
// # Concurrency
//
// What one goroutine makes and others read is an immutable value in a watched
// cell. Each part has a Run that owns its goroutines and returns when they have
// ended; Run starts them in one group and stops them in reverse order of need.
package agent
