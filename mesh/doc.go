// Package mesh owns App Mesh's model: the seven kinds of
// appmesh.k8s.aws/v1beta2 as they are, parsed strictly, defaulted, validated,
// and resolved into a graph whose references are names in it.
//
// It is pure: no I/O, no clock. It must not know Envoy (that starts in xds),
// where manifests are kept (store), or SPIFFE beyond the syntax of an ID.
//
// The data goes one way, and so do the main types:
//
//	bytes -> Split -> manifest.Document -> Parse -> Resource -> NewGraph -> Graph
//
// A Document is one object, not yet understood (internal/manifest); Signet's own
// kinds are decoded from it by their owners. Resource is one App Mesh
// object with its spec, which satisfies every constraint that can be checked
// alone. Graph is all of them, with every reference resolved. [Unsupported]
// names what this version does not translate, [Warnings] what has no effect,
// [CheckTransition] what may not change in one step.
//
// Every mistake is a [manifest.Error] with file, line, column and field path; all
// mistakes of a document are reported, not just the first.
//
// # Concurrency
//
// Values are immutable once returned, by convention: nothing here locks, and
// nothing here changes a Resource or Graph after handing it out.
package mesh
