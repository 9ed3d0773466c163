//go:build !legacypeer

package attestation

// legacyKernel has every peer met as on a kernel before 6.5, in builds with the
// tag legacypeer alone: the tests of what meets a peer run with it, too.
const legacyKernel = false
