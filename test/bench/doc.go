// Package bench prints the figures of docs/BENCHMARKS.md: each beside its goal
// and, in the same run, beside the physical limit or a peer. Its tests have the
// build tag bench, since they assert nothing: `make bench` runs them.
package bench
