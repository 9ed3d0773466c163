// Package unixsock owns what two processes of one host know of each other over a
// Unix socket: who is at the other end, where a socket may be put, and whether
// anybody else could put another one in its place.
//
// It must not know what is said over the socket, nor attest programs: that is
// attestation's. Main types in reading order: Peer, Credentials, Listen,
// TrustedListener.
package unixsock
