//go:build legacypeer

package attestation

// legacyKernel: see legacy.go.
const legacyKernel = true
