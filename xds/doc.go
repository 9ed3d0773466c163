// Package xds translates a mesh into the Envoy resources of one view: what the
// proxies of one virtual node, in one [Shape], need to know. A view is a pure
// function of its [Input]; equal inputs give equal bytes.
//
// It owns every Envoy message that Signet generates, and the hardening of them
// (D13, D17, D18, D20, D21). It must not know where the mesh is
// kept, how resources reach a proxy (ads), or any key: certificates are only
// named here, by SPIFFE ID, and served by the agent.
//
// Reading order:
//
//   - [Input], [Build]: what goes in, and the order of the translation;
//   - [Shape], [NodeID]: what a proxy says about itself;
//   - ingress.go, egress.go: the two listeners, with hcm.go and filters.go for
//     what every HTTP manager has, refuse.go and withheld.go for requests that two
//     readers could understand differently, denial.go for what Envoy answers by
//     itself, accesslog.go, tls.go for both sides of mTLS;
//   - connection.go, tcp.go: bytes in the place of requests, and their ways out;
//   - route.go, match.go, retry.go: App Mesh routes as Envoy routes;
//   - cluster.go, endpoint.go, health.go: where requests go;
//   - part.go, memory.go: what views have in common is made once; reader.go, section.go: what a view
//     had the last time is used again where all that it depends on is as it was.
//
// What must hold of anything generated is checked by test/invariants, without
// knowledge of how it was generated, so that it serves config dumps too.
//
// Names are App Mesh's (lds_ingress_…, cds_egress_…), so that dashboards and
// alarms of its users keep working.
//
// # Concurrency
//
// There is no state: Build may be called from any number of goroutines, with
// the same Input, as long as Input.Endpoints may.
package xds
