// Package workloads is what the processes of a host are given that ask for
// themselves: applications, by the Workload API, and Envoys that others
// configure, by plain SDS. Proxies of the mesh are agent/relay's.
//
// It owns which identities a process has at each moment and when it is told,
// why one that has none is refused, and the streams of plain SDS. It must not
// know how a certificate is made or renewed, nor the forms in which it is sent.
//
// Main types in order: [Source] is an sds.Source, [Secrets] serves Envoys from one.
//
// # Concurrency
//
// Source keeps nothing for a caller. [Secrets.Guard] runs one goroutine beside
// each stream, and waits for it.
package workloads
