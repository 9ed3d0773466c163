// Package meshtest runs a whole mesh for a test: the real signet binary as
// server and agent, real Envoys, a policy repository, and applications in the
// test's own process. A test says which nodes there are and which manifests
// are applied, and speaks to the mesh as its users do: through proxies, by the
// command line, over the admin socket.
//
// Start makes a World and registers its end with the test. Everything is on
// loopback, in a folder of the test's own, and ends by pid.
package meshtest
