// Package svids makes the private keys of a host, has certificates issued for them,
// and renews these in time.
//
// It owns what an SVID is here ([SVID]), by which roots one is accepted ([Trust]), and
// when the next is asked for: an identity that is kept has at any instant at least
// three quarters of its life left, as long as a server answers. It must not know what
// the SVIDs are for, nor how a server is reached: an [Issuer] is handed in.
//
// # Concurrency
//
// SVID and Trust are immutable. A [Keeper] is safe for any number of goroutines; its
// Run owns those that ask for certificates, and waits for them.
package svids
