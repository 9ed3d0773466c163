package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// signingTemplate is a signing certificate of a trust domain: a SPIFFE ID without
// a path (X509-SVID 3.2), and only the signing of certificates among its usages.
func signingTemplate(td spiffeid.TrustDomain, name string, key crypto.PublicKey) (*x509.Certificate, error) {
	if _, err := netip.ParseAddr(td.Name()); err == nil {
		// RFC 5280 4.2.1.10: a URI constraint is a host name, and a URI whose host
		// is an IP address fails against any constraint.
		return nil, fmt.Errorf("trust domain %q is an IP address, which no name constraint can confine: choose a name", td.Name())
	}
	id, err := url.Parse(td.IDString())
	if err != nil {
		return nil, fmt.Errorf("trust domain %q: %w", td.Name(), err)
	}
	serial, err := newSerial(caPrefix)
	if err != nil {
		return nil, err
	}
	spki, err := hashKey(key)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		// Different keys have different names, so that no verifier has to try.
		Subject:               pkix.Name{CommonName: name, SerialNumber: hex.EncodeToString(spki[:8])},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{id},
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}, nil
}

// newRoot makes a self-signed root that ends o.Root after now.
func newRoot(td spiffeid.TrustDomain, key crypto.Signer, now time.Time, o Options) (*x509.Certificate, error) {
	return signRoot(td, key, now.Add(-backdate), now.Add(o.Root), o.ConfineURIs)
}

func signRoot(td spiffeid.TrustDomain, key crypto.Signer, from, until time.Time, confineURIs bool) (*x509.Certificate, error) {
	t, err := signingTemplate(td, "Signet root", key.Public())
	if err != nil {
		return nil, err
	}
	t.NotBefore, t.NotAfter = from.UTC(), until.UTC()
	t.MaxPathLen = 1
	constrainRoot(t, td, confineURIs)
	return createSigning(t, t, key.Public(), key)
}

// newIssuing makes an issuing certificate under root that ends life after now.
// Its path length is 0: it signs leaves only.
func newIssuing(td spiffeid.TrustDomain, root *x509.Certificate, rootKey crypto.Signer, key crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	t, err := signingTemplate(td, "Signet issuing", key)
	if err != nil {
		return nil, err
	}
	t.NotBefore, t.NotAfter = later(now.Add(-backdate), root.NotBefore).UTC(), now.Add(life).UTC()
	t.MaxPathLenZero = true
	if t.NotAfter.After(root.NotAfter) {
		return nil, fmt.Errorf("an issuing certificate until %s would outlive the root, which ends %s", t.NotAfter, root.NotAfter)
	}
	constrainIssuing(t, td, confinesURIs(root))
	return createSigning(t, root, key, rootKey)
}

// createSigning is the only call of x509.CreateCertificate for signing
// certificates; sign.go has that for leaves.
func createSigning(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", t.Subject.CommonName, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil { // such as a trust domain that no URI can have
		return nil, fmt.Errorf("sign %s: read it back: %w", t.Subject.CommonName, err)
	}
	return c, nil
}

// hashKey is the SHA-256 of a public key in its one PKIX encoding, whatever
// encoding it came in.
func hashKey(key crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{}, errors.New("the public key cannot be encoded")
	}
	return sha256.Sum256(der), nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
