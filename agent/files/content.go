package files

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"signet.example/agent/svids"
)

// The names of the standard, as its revision has them that docs/FILES.md names.
const (
	bundleName  = "credential-bundle.private-key.pem"
	trustSuffix = ".spiffe-trust-bundle.pem"
)

// Credentials are what one folder is made of, at one moment.
type Credentials struct {
	ID string
	// Key is PKCS#8.
	Key []byte
	// Chain is DER, leaf first.
	Chain [][]byte
	// Trust has the authorities of each trust domain, by its name, in DER.
	Trust map[string][][]byte
}

// credentialsOf are those of an SVID.
func credentialsOf(s *svids.SVID, t *svids.Trust) (Credentials, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		return Credentials{}, fmt.Errorf("encode the key of %s: %w", s.ID, err)
	}
	return Credentials{ID: s.ID.String(), Key: key, Chain: s.Chain, Trust: map[string][][]byte{t.Roots.TrustDomain.Name(): t.DER}}, nil
}

// keyPEM is the key's block.
func (c Credentials) keyPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: c.Key})
}

// chain are the certificates of the chain, which ends before the trust anchor
// (Filesystem Delivery 2.1).
func (c Credentials) chain() [][]byte {
	var chain [][]byte
	for i, der := range c.Chain {
		if i == 0 || !c.anchors(der) {
			chain = append(chain, der)
		}
	}
	return chain
}

func (c Credentials) chainPEM() []byte { return certificatesPEM(c.chain()) }

// anchors reports whether the certificate is an authority of any of the domains.
func (c Credentials) anchors(der []byte) bool {
	for _, roots := range c.Trust {
		for _, root := range roots {
			if bytes.Equal(root, der) {
				return true
			}
		}
	}
	return false
}

// bundle is the standard's file: one, so that key and chain are replaced together.
func (c Credentials) bundle() []byte { return append(c.keyPEM(), c.chainPEM()...) }

// certificatesPEM has nothing but the blocks: no header, and no text between them.
func certificatesPEM(list [][]byte) []byte {
	var out []byte
	for _, der := range list {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
