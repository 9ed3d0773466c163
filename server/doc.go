// Package server is Signet's control plane. It joins the other folders: the
// store's objects become a model (mesh graph, entries, bindings), the model and
// what the agents report become views of Envoy resources, and certificate
// requests that agents may make go to the signer process.
//
// It owns the configuration, which model of what is stored is served (follow.go), what
// agents may ask, and the order of start and stop (server.go); each of its parts is a
// folder. It must not know how a certificate is made (ca), how a resource looks (xds), how
// a stream is spoken (ads) or what Rego means (policy). It never holds a private key other
// than its own TLS key: workloads' keys are born on their hosts, and the issuing key lives
// in the signer process.
//
// Main types, in the order in which data goes: Config and InitConfig, then the parts:
// model (everything stored, joined), groups (what NodeGroups decide), roster (agents that
// joined), fleet (those that are connected, and the addresses that they report), policies and
// issuers (what authorization needs from outside), views (what each agent and proxy is told), join
// (how a host becomes an agent), issuance (who gets which certificate), access (who may
// call what), check (what is wrong); agentAPI and admin are the two faces.
//
// # Concurrency
//
// What is served is immutable and replaced as a whole: the model behind an atomic pointer,
// what several servers would share behind the two interfaces of the part shared. One
// goroutine (views.Views.Run) turns them into views; writers only replace their value and
// wake it, but an admin write, which has its views already, publishes them itself, under
// the same lock. Admin writes are serialised by one lock, since each is checked against all
// that is stored. Of the calls of agents, Attest waits for the database, which it writes,
// and so does Issue for the mark of the issuance log.
package server
