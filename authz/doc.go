// Package authz answers Envoy's ext_authz questions: it turns a CheckRequest
// into policy's input, verifies end-user tokens, asks the policy revision that
// the request's configuration is stamped with, and records each decision with
// everything secret left out.
//
// It fails closed: whatever happens, the answer is a CheckResponse, and it is
// an OK only where a rule said so. Three causes of denial are told apart:
// policy (a rule, or none, or a refused token), error (the policy could not be
// evaluated) and unavailable (nobody could decide: unknown revision, overload).
//
// It must not know how revisions, keys and bans come here (the agent brings
// them to Configure) nor where records go (Options.Record); it holds no
// private key and opens no socket.
//
// Main types in order: Server, Options, Config, Issuer; Caller, which the
// connection carries; Record; Metrics.
//
// # Concurrency
//
// Server.Check runs in as many goroutines as gRPC starts, of which
// Options.MaxConcurrent decide at a time. What it decides by is one immutable value behind an
// atomic pointer that Configure swaps; a request is judged by one such value
// from beginning to end. The package starts no goroutine.
package authz
