// Package cloudmap finds instances of virtual nodes in AWS Cloud Map, for those of which
// no agent registers an endpoint: asking for them, keeping the last good answer over
// failures and restarts, and what of an answer can be called.
//
// It must not know meshes, or what views are made of answers: it is given the nodes that
// there are now with what is to be asked for each, and says when an answer is another one.
//
// Main types: Question, Answers, Services, Config; AWS is who is asked.
//
// # Concurrency
//
// Services may be used from any number of goroutines; Run is one of its own, and waits for
// the calls that it makes. No lock is kept while anything else is called.
package cloudmap
