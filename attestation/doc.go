// Package attestation turns evidence about a local process into selectors: who is
// at the other end of a Unix socket. It owns the holding of a peer by pidfd and the
// reading of its properties. Evidence about a host is the matter of the folders below:
// nodes has the list of the methods, and each method a folder with both of its ends.
//
// It must not know who may hold which identity (identity matches selectors),
// nor what is served to a peer.
//
// Main types in reading order: Attestor, Peer, PeerInfo, Children. One more
// way to attest a process is a file, and its row in workloads (workload.go).
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
