package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

// verifyIssuing holds an issuing certificate to its profile and its key to it,
// whatever the clock says: a wrong clock stops issuance, not the opening.
func verifyIssuing(td spiffeid.TrustDomain, root *x509.Certificate, i *issuing) error {
	c := i.cert
	_, err := c.Verify(x509.VerifyOptions{
		Roots: identity.PoolOf(root), CurrentTime: c.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	switch {
	case err != nil:
		return fmt.Errorf("issuing certificate: %w", err)
	case !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("issuing certificate: it is not one for leaves only")
	case c.NotBefore.Before(root.NotBefore) || c.NotAfter.After(root.NotAfter):
		return errors.New("issuing certificate: it is valid when its root is not")
	}
	if err := checkConfined(c, td, confinesURIs(root)); err != nil {
		return fmt.Errorf("issuing certificate: %w", err)
	}
	digest := sha256.Sum256([]byte("signet: the key works"))
	sig, err := i.key.Sign(rand.Reader, digest[:], nil)
	if err != nil {
		return fmt.Errorf("issuing key: %w", err)
	}
	if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return errors.New("issuing key: what it signs does not verify under its certificate")
	}
	return nil
}

// rehearse makes root, issuing certificate and leaf of a trust domain with keys
// that are thrown away, and verifies the leaf: a trust domain whose name no
// certificate or constraint can carry is found before there is an authority. The
// real key signs no leaf that is not in the log, not even for a trial.
func rehearse(td spiffeid.TrustDomain, now time.Time, o Options) error {
	keys := make([]*ecdsa.PrivateKey, 3)
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return fmt.Errorf("try out %q: %w", td.Name(), err)
		}
	}
	root, err := newRoot(td, keys[0], now, o)
	if err != nil {
		return err
	}
	cert, err := newIssuing(td, root, keys[0], keys[1].Public(), now, o.Issuing)
	if err != nil {
		return err
	}
	id, err := spiffeid.FromPath(td, "/rehearsal")
	if err != nil {
		return fmt.Errorf("try out %q: %w", td.Name(), err)
	}
	t, err := leafTemplate(id, caPrefix, cert, now, o.Issuing/2)
	if err != nil {
		return err
	}
	tbs, err := encode(t, cert, keys[2].Public())
	if err != nil {
		return fmt.Errorf("try out %q: %w", td.Name(), err)
	}
	der, err := signTBS(tbs, keys[1])
	if err != nil {
		return fmt.Errorf("try out %q: %w", td.Name(), err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("try out %q: %w", td.Name(), err)
	}
	_, err = identity.VerifyChain([]*x509.Certificate{leaf, cert}, td, identity.PoolOf(root), now, x509.ExtKeyUsageServerAuth)
	return err
}
