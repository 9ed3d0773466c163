package agent_test

import (
	"errors"
	"testing"

	enrolment "signet.example/agent/join"
	"signet.example/api"
	"signet.example/attestation"
)

// On a kernel before 6.5 (in CI by the tag legacypeer) the agent serves and says so,
// or does not start where the operator wants it that way.
func TestALegacyKernelIsServedUnlessTheOperatorRefusesIt(t *testing.T) {
	mode, err := enrolment.PeerMode(false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = enrolment.PeerMode(true)
	if legacy := mode == api.Report_LEGACY; legacy != errors.Is(err, attestation.ErrLegacy) || !legacy && err != nil {
		t.Errorf("mode %s, refusing legacy ones: %v", mode, err)
	}
}
