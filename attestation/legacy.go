//go:build !legacypeer

package attestation

// legacyKernel is true only in builds with the tag legacypeer: peers are then held
// as on a kernel before 6.5. The tests of the packages that meet peers run with it too.
const legacyKernel = false
