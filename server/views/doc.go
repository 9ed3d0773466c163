// Package views is what each agent and proxy is told: one view for each agent (what hosts
// of its group may be, by which roots, policy and issuers, who is banned), one for each
// virtual node in each shape of a proxy. What a change can affect is made again, the rest is
// not looked at; what was tried before a change was stored is what is published.
//
// Of the agents that follow a virtual node one has a change first; what its proxies refuse
// is withheld from the others (rollout.go).
//
// It must not know how anything is stored, fetched or reported, or who may follow a view:
// it has a [Look] at everything from its [Source], and asks [Access].
//
// # Concurrency
//
// [Views] are safe for any number of goroutines. One lock is held from a look until what
// came of it is published, so that nobody publishes an older look after a newer one.
package views
