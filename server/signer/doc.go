// Package signer is the signer process, both ends of it: the process itself, which
// owns the issuing key and the issuance log, and what the server starts it or
// connects to it with. It is the only importer of ca, so that nothing else of the
// control plane can sign.
//
// The process decides nothing about who may have what (server does, before it
// asks); it holds every request to its profile and leaves none unrecorded, also
// when the server is compromised.
//
// Where is what, the process first: Config (config.go) and Init (init.go); Run, on a
// socket that was inherited, and Serve, as a service of its own user (serve.go,
// service.go); whose files these must be, and what a start would find (private.go,
// check.go). The server's end: Process, a child that is started again when it dies
// (process.go); Remote, a connection to the service (remote.go); Where, which of the two
// (reach.go); Client, what can be asked of either (client.go).
//
// # Concurrency
//
// Process, Remote and Client may be used from any number of goroutines. Process has one
// goroutine, which Close waits for.
package signer
