// Package redirect has the rules of a network namespace that lead connections to a proxy, which
// neither the application nor its callers know of: what goes out to the proxy's way out, and
// what comes in for the application's ports to the proxy's one port for all.
//
// It must not know what a proxy does with a connection: that is xds's, by the destination that
// the connection had (docs/decisions/099).
//
// Main types in order: [Rules] say what is redirected, [Up], [Down] and [Check] make it so in
// the namespace of the calling thread, by netlink. There is one table, of the name [Table], and
// no other is read or changed.
//
// # Concurrency
//
// Everything is a value. What changes the namespace does so in one transaction of the kernel's.
package redirect
