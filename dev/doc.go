// Package dev is the demo: a whole mesh on one machine, made fresh, shown and
// taken away again. It writes what a user would write (App Mesh specs, Rego in
// a git repository, two YAML files), starts `signet server` and `signet agent`
// as child processes, and speaks to them as a user does, through the admin
// socket and through the proxies. It must not reach into either.
//
// Run is the whole story; world.go says what is in the mesh, calls.go which
// calls are made and what they must answer, children.go how processes start
// and end, service.go is the small application that the demo's nodes run.
//
// # Concurrency
//
// Run owns every child process; each has one goroutine that waits for its end.
package dev
