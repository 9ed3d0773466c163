// Package answered keeps what the proxies of this host answered by themselves, and what was
// denied, in the last day: for each caller, callee and kind a record of each minute, with
// the first of it and how many there were. It must not know why there are any.
//
// [Day] is bounded in bytes, which are divided among the proxies: whichever has most has its
// records joined to ones of longer times, and its oldest forgotten. So no proxy, nor who calls
// it, has those of another one forgotten, and 1,000 answers in a second take no more than one.
//
// # Concurrency
//
// A Day is safe for any number of goroutines.
package answered
