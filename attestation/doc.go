// Package attestation turns evidence into selectors: which local process is at
// the other end of a Unix socket, and by what token a host may join. It owns
// the holding of a peer by pidfd, the reading of its properties, and the form
// of join tokens.
//
// It must not know who may hold which identity (identity matches selectors),
// where tokens are kept (store), nor what is served to a peer.
//
// Main types in reading order: Attestor, Peer, PeerInfo, Children, Token. One more
// way to attest a process is a function in workloads (workload.go) and its
// selectors' forms in identity.
//
// # What a peer proves
//
// A Peer is the process that called connect(2), whoever holds the socket now.
// Each call of Selectors reads it anew and refuses a process that is gone, that
// has executed another program, or that has changed its user or group since it
// connected. It is not a boundary against a live process that hands its own
// socket on, nor against who may debug that process. Nor is the program one
// against the user who runs it: LD_PRELOAD and ptrace(2) make it do what that user
// wants, so that a path or hash tells programs apart only together with a user.
//
// # Concurrency
//
// All types are safe for concurrent use. The package starts no goroutine.
package attestation
