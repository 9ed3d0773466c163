// Package api is how the parts of Signet speak: the protobufs of agent and
// server, of the operator's interface, of Signet's own xDS resources, and of
// the two private sockets (server to signer, agent to authz). It knows no
// behaviour: the only code written by hand here dials a socket, and keeps enums and
// the words that stood in their place before in step (words.go).
package api
