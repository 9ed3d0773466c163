// Package issuance is who gets which certificate: what the signer process is asked for,
// what of it may go out, and what is known afterwards of everything that was issued.
//
// It must not know how a certificate is made (the signer's, behind [Process]), who calls
// and how that was proven (a [Requester] was let in), or what an operator has stored (what
// a requester may be is handed in with it).
//
// Main types, in the order in which a request goes: [SVIDs] (what agents ask for: which of
// it they may have, and for how long), [Queue] (several agents in one call), [Witness] (the
// signer as the rest of the server sees it: no answer is given whose record is not kept on
// this side too). Beside them: [Authority] (the root set and issuing certificate, as the
// signer says and as verified), [Log] (what is open, valid and held, followed from the
// issuance log), [Own] (the server's own certificate, and its TLS).
//
// # Concurrency
//
// All may be used from any number of goroutines. Queue, Authority, Log and Own each have a
// Run, which one goroutine calls; Log.Run alone changes what Log knows. Witness.writing is
// taken before Witness.mu, Log.mu and Authority.taking before nothing. [Roots] are immutable.
package issuance
