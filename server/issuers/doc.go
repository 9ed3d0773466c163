// Package issuers keeps the public keys of token issuers, of end users and of hosts that join:
// fetching them, from nowhere but where an operator said, keeping the last good ones over failures and
// restarts, and what agents are told of them.
//
// It must not know how issuers are applied or stored, or how agents are reached: it is
// given the list that there is now, and says when its keys are others.
//
// Main types: Keys, Config, Store; Fetch gets one set.
//
// # Concurrency
//
// Keys may be used from any number of goroutines; Run is one of its own, and waits for
// the fetches that it starts. Which lock is taken before which stands on Keys.
package issuers
