package svids_test

import (
	"testing"
	"time"

	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/test/impostor"
)

// The server's answer is held to the same: what comes first is the SVID.
func TestAnIssuedChainBeginsWithTheCertificateForOurKey(t *testing.T) {
	root := svidstest.NewRoot(t)
	leaf, key := root.Leaf("/shop/web")
	im := impostor.New(t, leaf, root.Cert)
	for range impostor.Chains() {
		chain := im.Chain()
		var der [][]byte
		for _, c := range chain {
			der = append(der, c.Raw)
		}
		s, err := svids.New("web", der, key, root.Trust(1), time.Now())
		if err != nil {
			continue
		}
		if !chain[0].Equal(leaf) || !s.Leaf.Equal(leaf) || len(s.Chain) == 0 || string(s.Chain[0]) != string(leaf.Raw) {
			t.Fatalf("an SVID out of a chain of %d that begins with %s", len(chain), chain[0].Subject)
		}
	}
	s, err := svids.New("web", [][]byte{leaf.Raw, root.Cert.Raw}, key, root.Trust(1), time.Now())
	if err != nil || len(s.Chain) != 1 {
		t.Errorf("with its root: %v, sent on with %d certificates", err, len(s.Chain))
	}
}
