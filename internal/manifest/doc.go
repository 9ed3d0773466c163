// Package manifest reads and writes manifests strictly: YAML (or JSON) documents
// with apiVersion, kind, metadata and spec, as kubectl has them. It knows no kind.
//
//	bytes -> Format.Split -> Document -> Decode -> a spec of its owner's
//
// A [Format] says which API groups are read. A [Document] is one object, its
// envelope checked and its spec not yet understood; the owner of its kind decodes
// it into a struct by yaml and `check` tags. [Encode] is the way back, in a form
// that readers of YAML 1.1 and 1.2 take for the same.
//
// [Document.Leaves] lists what was given in a document. Of a template whose placeholders
// have no value, Format.Unfilled knows: what is wrong because of one says so.
//
// [Form] reads a text of the same objects in another form into [Node]s, of which [Made]
// makes a Document: its mistakes are told by the places and the words of that text. What
// cannot be known there is [Opaque]; where nothing can stand for it the mistake says so.
//
// [ReadSettings] reads a file without an envelope in the same way.
//
// Every mistake is an [Error] with file, line, column and field path; all
// mistakes of a document are reported, not just the first, as [Errors].
// Documents are bounded in bytes, tokens, depth and what aliases expand to.
//
// # Concurrency
//
// Values are immutable once returned, by convention; nothing here locks.
package manifest
