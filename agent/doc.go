// Package agent is the node agent: it joins a server, makes and keeps the
// private keys, and is the only thing that a local Envoy or application talks
// to, over Unix sockets.
//
// It composes what is below it on a host: its configuration, the Workload API, and the
// order in which its parts start and stop. It must not know what a mesh is or how its
// resources are made (xds), nor how anything is signed (ca).
//
// The parts are handed what they use and do not know each other: join makes the host
// known to a server, svids keeps SVIDs fresh, resources is what the servers tell, upstream
// what goes over the connection to them, relay what proxies are sent, envoy runs these,
// authzproc the process that decides, wayout who may speak with a proxy's identity;
// limits bounds what local processes may hold.
//
// Main types in order: [Config] and [Run] are what cmd sees. Inside: link is the
// connection with the cells that the parts share; assemble makes the parts.
//
// # Concurrency
//
// What one goroutine makes and others read is an immutable value in a watched
// cell. Each part has a Run that owns its goroutines and returns when they have
// ended; Run starts them in one group and stops them in reverse order of need.
package agent
