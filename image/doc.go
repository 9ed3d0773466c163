// Command image writes the OCI images of Signet: of a server, which is one static program, and of an agent
// with its Envoy, which takes the C library of Debian. What goes in is given, pinned and listed in a bill of
// materials; what comes out has the same digest wherever and whenever it is made.
//
// It is a module of its own, so that nothing it needs is in the product.
package main
