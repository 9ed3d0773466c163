// Package sandbox bounds what a policy's Rego may do: which builtins it may call, the size of
// what one call may read and return, and the time and steps of one evaluation.
//
// It must not know what policies decide.
//
// In order: [Capabilities] and [CheckCalls] (what may be called), [Fence] (the cost of a call),
// [Budget] (the cost of an evaluation), [Error] and [ErrLimit] (errors that quote nothing of a
// request).
//
// # Concurrency
//
// A Budget belongs to the goroutine of its evaluation; all else may be used by any number of
// goroutines. The package starts none.
package sandbox
