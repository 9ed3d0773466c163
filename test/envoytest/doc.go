// Package envoytest runs a real Envoy in tests and benchmarks, and puts load
// on it. It owns finding the binary, a bootstrap for ADS over a Unix socket,
// the admin interface, a small backend and an open-loop load generator. It
// must not know Signet: who serves the ADS is the caller's business.
//
// Main types, in order: Config and Envoy, Backend, Load and Report.
//
// Everything is on loopback or on Unix sockets in a directory of the test.
// Envoy is ended by its process id when the test ends.
//
// # Concurrency
//
// An Envoy may be asked from several goroutines. A Load runs its own
// goroutines until Stop, which waits for them.
package envoytest
