// Package limits bounds what local processes may hold of an agent's sockets: their
// connections, the calls on these, and what they have sent that nobody has read.
//
// It owns how the room is divided: among processes and users, with a part that is kept
// for proxies that the agent runs and a part for users that are known ([Tally],
// [Guests]). It must not know what a socket is for.
//
// # Concurrency
//
// Everything is safe for any number of goroutines. A Tally asks whose a connection is
// without its lock, since that asks the kernel.
package limits
