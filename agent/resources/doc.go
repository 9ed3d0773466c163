// Package resources reads what the servers tell an agent for itself, in Signet's own
// resources: the entries, bindings and bans of its group, policies and issuers.
//
// A [Snapshot] is all of it at one moment, and answers who a local process may be. It
// owns these rules; it must not know how a process is attested (only which selectors
// there are), how the resources come, or what is done with an identity.
//
// # Concurrency
//
// A Snapshot is immutable once [New] has returned it.
package resources
