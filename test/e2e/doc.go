// Package e2e holds the stories of the whole mesh, each with the real binary
// and real Envoys: what an attacker at a listener gets, what a rotation costs,
// what stays when the server is gone. One file is one promise.
package e2e
