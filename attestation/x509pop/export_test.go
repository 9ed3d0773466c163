package x509pop

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"time"
)

// Chain reports whether a chain leads from a host to the verifier's roots, without a proof.
func (v *Verifier) Chain(chain []*x509.Certificate, now time.Time) error {
	_, err := v.verifyChain(chain, now)
	return err
}

// Sign signs a challenge as Host does.
func Sign(key crypto.Signer, challenge []byte) ([]byte, error) {
	message, options := messageFor(key.Public(), challenge)
	return key.Sign(rand.Reader, message, options)
}
