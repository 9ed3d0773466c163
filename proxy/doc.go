// Package proxy owns what server, agent and Envoy agree on about one proxy: which
// object it runs for ([Ref], and its form as xDS node id), the names of headers
// and of context that decisions travel by, the form of a decision's id, the
// record of a denial that Envoy made by itself ([Denial]), where access logs
// may be written, and how many calls a connection to the agent carries.
//
// It is pure: no I/O, no clock, no state. It knows no manifest (mesh), no Envoy
// resource (xds) and no certificate (identity).
//
// # Concurrency
//
// Values only.
package proxy
