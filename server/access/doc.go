// Package access is who may call what on the agents' listener: by which proof a caller is
// let in, which streams end because of whom, and what of it is in the audit trail.
//
// It must not know what is answered. What it found of a caller, who was let in, is a
// [Caller]; what a stream may follow is asked of [Follower]. A method that is not in its
// rules is nobody's.
//
// # Concurrency
//
// [Access] and [Refusals] are safe for any number of goroutines.
package access
