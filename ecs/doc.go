// Package ecs makes task definitions of Amazon ECS: of one with App Mesh's Envoy one with Signet's
// agent, and those of a server and of a host's agent.
//
//	text -> text with the places of its values -> edits -> text, and why each line of it changed
//
// What is not edited stays byte for byte, whatever it is: the order of keys, spaces, comments,
// keys that nobody here knows. It asks no server and reads no file; what it cannot convert it refuses by name.
// It must not know what an agent does with its environment: names of App Mesh's are those of
// agent/appmeshenv.
//
// # Concurrency
//
// Everything is a value; Convert may be called from any goroutine.
package ecs
