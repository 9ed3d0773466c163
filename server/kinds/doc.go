// Package kinds is the one table of what can be applied: what each kind is called,
// how its manifests are understood, what apply refuses of them, what its objects
// refer to, how they are stored, and whose proxies a change of one can reach.
// Apply, get, delete, diff, the completion of the command line and the pages follow
// from it; one more kind is a row here and the code that gives it a meaning.
//
// App Mesh's kinds are understood by package mesh, Signet's own by the packages that
// use them. It must not know the store, the agents, or how anything is served.
//
// Main types in order: Kind, a row; Key; Object, one manifest understood.
//
// # Concurrency
//
// The table is never changed. An Object is not changed once it was shared, except for its
// Revision and Created, which are set before.
package kinds
