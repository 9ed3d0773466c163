package attestation_test

import (
	"errors"
	"testing"

	"signet.example/attestation"
)

// What was read before the program changed is not of the process that answers now.
func TestProcessThatExecutesWhileItIsReadIsRefused(t *testing.T) {
	s := newStage(t)
	child, c := s.connect(t, nil)
	a := &attestation.Attestor{Supervised: func(int, int) (string, bool) {
		child.order("exec "+s.program, "idle")
		return "", false
	}}
	p, err := a.Peer(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrExec) {
		t.Errorf("%v, %v", sels, err)
	}
}
