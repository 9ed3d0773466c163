// Package dns is the agent's name server: it answers the names of services with their loopback
// addresses, so that an application whose resolver it is calls its backends by their names
// without any proxy of its own, and asks other name servers for everything else.
//
// It owns what it costs to be asked, which anybody on the host may do: questions under way,
// connections, sizes and times are bounded. It caches no answer, and keeps the names
// of services for its next start ([Kept]). It must not know where the addresses come from, nor who
// asks.
//
// Main types in order: a [Config] is checked by Validate and listened on by [Listen]; a [Server]
// answers until its Run ends. [Names] is what it answers by itself.
//
// # Concurrency
//
// Names is asked by several goroutines at once.
package dns
