// Package envoydump reads what App Mesh made for its proxies, from the /config_dump of
// Envoy's admin interface: by the names that App Mesh gave resources, and their contents.
//
// A dump is one proxy's, and has what that calls: its own listeners, its backends, their
// routes, and of each node that these lead to the listener that is called. What a dump
// cannot have is a finding at the object, with where it is found. Dumps of one mesh are
// joined by [Dumps]; where two do not agree, what they are of is incomplete.
//
// It must not know Envoy's own types: a dump of any version is read as far as it has what
// is looked for.
package envoydump
