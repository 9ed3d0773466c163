// Package wayout decides who may speak with a proxy's identity. Whoever connects to an
// outbound listener calls as its virtual node, so that Envoy asks here for each new
// connection (network ext_authz), before it reads a request.
//
// It owns who is the application behind each proxy: who holds the sockets that the proxy
// sends inbound calls to, whom the file of applications remembers, and whether the folders
// of sockets keep everybody else out. It must not know what a proxy is sent, nor how
// requests are decided about: that the authz process is gone changes nothing here.
//
// Main types in order: a [Server] made by [New] answers Envoy; [Proxies] is what it has to
// know of the proxies of the host. [Applications] and [Accept] are for the operator of a
// host, beside an agent that may run. [CheckEgress] and [CheckApp] look at folders.
//
// # Concurrency
//
// A Server is safe for any number of goroutines. Locks are taken in the order
// memory.saving, memory.mu; owners.mu is never held while another one is taken, nor while
// sockets are looked for.
package wayout
