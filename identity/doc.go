// Package identity owns the values that say who is who: the SPIFFE IDs that
// Signet gives, the three kinds of registration (NodeGroup, Entry, Binding),
// which of them fit a workload's selectors, the trust domain's signed root set,
// and the checks of an X.509-SVID that are stricter than the libraries'.
//
// It does no I/O, reads no clock and knows neither the mesh, nor the store,
// nor how evidence was gathered and which selectors there are: names come in as
// strings and time as an argument.
//
// Main types in reading order: Selector and Selectors, Entry, Binding, Plain,
// RootSet; then CheckLeaf and VerifyChain.
package identity
