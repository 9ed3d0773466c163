package identity

import (
	"crypto/x509"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// CheckPresented holds a chain that somebody else verified up to a root, leaf
// first, to what a verifier of ours demands beside that, and returns whose it is.
// A proxy that verifies paths and compares names still takes leaves that X509-SVID
// forbids (docs/decisions/020); what it shows us of them is looked at again here.
func CheckPresented(chain []*x509.Certificate) (spiffeid.ID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return spiffeid.ID{}, fmt.Errorf("chain of %d certificates: want 1 to %d", len(chain), maxChain)
	}
	id, err := leafID(chain[0])
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("leaf: %w", err)
	}
	if err := checkNames(chain[0]); err != nil {
		return spiffeid.ID{}, fmt.Errorf("leaf: %w", err)
	}
	for i, c := range chain[1:] {
		if err := checkSigner(c, id.TrustDomain()); err != nil {
			return spiffeid.ID{}, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
	}
	return id, nil
}
