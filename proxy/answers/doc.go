// Package answers is about what a proxy of ours answers by itself, to a request or a
// connection that never reached an application, or whose answer was cut off: the line that
// Envoy writes of each ([Line]), the kinds that there are ([Kind]), why each comes about and
// what mends it. It must not know who asks for them, or where they are kept.
//
// # Concurrency
//
// Everything is a value.
package answers
