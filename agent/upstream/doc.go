// Package upstream is what goes between an agent and its servers over the one
// connection that it has: the agent's own resources, the SVIDs that it asks for, the
// session in which it reports and is asked, and its own standing while all that lasts.
//
// It owns when the connection is made anew and when the host attests again. It must not
// know how the connection is secured, how a host first joins, or what is made of the
// resources: a [Standing] is handed in, and who reads them waits for the cells of
// [Config].
//
// # Concurrency
//
// Upstream.Run and Session.Run own their goroutines and wait for them; they set the
// cells that they were handed and nothing else. What a Session remembers belongs to the
// goroutine that receives.
package upstream
