// Package sds puts SVIDs and bundles into the two forms that workloads take
// them in: Envoy's Secret resources, which travel inside ADS, and the answers
// of the SPIFFE Workload API.
//
// It owns the shape of a Secret and its name, the endpoint's security header,
// the Workload API's streams and their error codes. It must not know where an
// SVID comes from, how a process is attested or which entry grants what: a
// [Source] tells it what a caller may have, and the caller's selectors come
// from a function that is handed in.
//
// Main types in order: [SVIDSecret], [BundleSecret] and, by other names, [CertificateSecret] and [AuthoritiesSecret] make Secrets,
// [WorkloadAPI] serves the API from a [Source] whose [Update] holds [SVID]s.
//
// # Concurrency
//
// A WorkloadAPI keeps nothing between calls. Each stream runs its Source's
// Watch in the goroutine that gRPC gave it; Source must stand any number of
// them at once.
package sds
