// Package readonly serves what others may read of a proxy, at the address on loopback where App Mesh
// had Envoy's admin interface: whether it is ready, its state, and a fixed set of series.
//
// It must not know where the admin interface is, which can do more than be read: it is handed a
// function that asks it.
//
// Main types in order: [Config] is one proxy's, [Run] serves it, and page is what of Envoy's
// statistics becomes the series.
//
// # Concurrency
//
// Run can be called from any goroutine, once for an address. Each answer of Envoy's is asked for by one
// caller at a time, and given to all who come within keep.
package readonly
