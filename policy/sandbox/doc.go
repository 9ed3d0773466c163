// Package sandbox bounds what a policy's Rego may do, whoever wrote it and whatever it is
// asked: which builtins it may call, what one call of a builtin may read, make and take, and
// what one evaluation may.
//
// It must not know what a policy is about, or what is decided.
//
// In order: [Capabilities] and [CheckCalls] (what may be called), [Fence] (what a call may
// cost), [Budget] (what an evaluation may), [Error] and [ErrLimit] (what may be said of one
// that failed).
//
// # Concurrency
//
// A Budget belongs to the goroutine of its evaluation; all else may be used by any number of
// goroutines. The package starts none.
package sandbox
