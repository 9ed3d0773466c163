package svids

import (
	"crypto/x509"

	"signet.example/identity"
)

// Trust is what the agent believes: the trust domain's roots and the pin of the
// key that speaks for them. Immutable.
type Trust struct {
	Roots identity.RootSet
	// Signed is the document that roots was read from.
	Signed []byte
	Pool   *x509.CertPool
	// DER are the roots' encodings, for bundles.
	DER [][]byte
}

// ParseTrust verifies a signed root set by the pin of its key.
func ParseTrust(signed, pin []byte) (*Trust, error) {
	roots, err := identity.ParseRootSet(signed, pin)
	if err != nil {
		return nil, err
	}
	t := &Trust{Roots: roots, Signed: signed, Pool: roots.Pool()}
	for _, c := range roots.Roots {
		t.DER = append(t.DER, c.Raw)
	}
	return t, nil
}
