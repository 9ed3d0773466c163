// Package repo owns the repositories that policies come from: the spec of a
// PolicySource, what of it could not be fetched, fetching, and reading the modules of
// one commit or of a folder, all of it bounded.
//
// It must not know Rego: a Module is a text by its path. Nothing is ever checked out,
// and no git program is run.
//
// Main types in order: SourceSpec and Source, Login, Tree, Module.
//
// # Concurrency
//
// All values are immutable once made; Fetch writes to its folder, which is its caller's
// to keep from others.
package repo
