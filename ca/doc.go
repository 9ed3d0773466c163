// Package ca is the certificate authority: it owns the root and issuing keys,
// the profiles of what may be signed, the way from a request to a certificate,
// and the issuance log. There is no certificate without a record: a leaf is
// checked, linted, reserved durably, signed, verified and marked issued durably,
// in this order, before it is answered.
//
// The order is held by types. Each stage takes what only the stage before makes:
//
//	Request → check → checked → lint → linted → reserve → reservation → sign →
//	signed → verify → verified → (marked issued) → Result
//
// A reservation works once, and the key it opens signs only the very bytes that
// were linted and reserved.
//
// It must not know who may ask for what (server decides that before it asks),
// how a request travels, or what the mesh is. It imports identity alone.
//
// Main types in order: Init makes an authority's folder; Authority holds its
// keys and renews the issuing certificate; Log is the issuance log; Issuer joins
// the two and signs by Profiles.
//
// # Concurrency
//
// Issuer, Authority and Log may be used from any number of goroutines. The log
// has one writer goroutine that gathers what waits into one fsync; Close ends
// it. The issuing key and certificate are one immutable value behind an atomic
// pointer; one caller at a time renews it, the others go on with the old one.
package ca
