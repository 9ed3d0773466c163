// Package policies makes policy revisions and puts them in force: reading a source in a
// process of its own (both ends of it), which is killed at its limits; what of it is
// wrong for this mesh; the exemptions of declared health checks; handing a revision to
// agents before routes are stamped with it.
//
// It must not know how sources are applied, or how agents and proxies are reached: it
// is given one look at the mesh, and says when its state is another. What Rego means is
// package policy's, where it comes from policy/repo's.
//
// Main types: Revisions and its State; Look, Store and Agents, which it is given;
// Reading, which Read makes of a source and RunChild is the other end of.
//
// # Concurrency
//
// Revisions may be used from any number of goroutines. Run and RunStamp are one each,
// and wait for what they start. Which lock is taken before which stands on Revisions.
package policies
