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
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// signingTemplate is a signing certificate of a trust domain: name constraints
// (D14), a SPIFFE ID without a path (X509-SVID 3.2), and nothing but signing
// certificates among its usages.
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
	t := &x509.Certificate{
		SerialNumber: serial,
		// Different keys have different names, so that no verifier has to try.
		Subject:               pkix.Name{CommonName: name, SerialNumber: hex.EncodeToString(spki[:8])},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{id},
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
	constrain(t, td)
	return t, nil
}

// constrain confines a signing certificate to SPIFFE IDs of its trust domain.
// RFC 5280 4.2.1.10: an empty dNSName or rfc822Name is every one. OpenSSL and
// BoringSSL take an empty rfc822Name literally, so mail is also confined to a
// domain that cannot exist (RFC 2606 2), which is excluded in turn.
func constrain(t *x509.Certificate, td spiffeid.TrustDomain) {
	const nowhere = "none.invalid"
	t.PermittedDNSDomainsCritical = true
	t.PermittedURIDomains = []string{td.Name()}
	t.ExcludedDNSDomains = []string{""}
	t.PermittedEmailAddresses = []string{nowhere}
	t.ExcludedEmailAddresses = []string{"", nowhere}
	t.ExcludedIPRanges = []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// newRoot makes a self-signed root that ends life after now.
func newRoot(td spiffeid.TrustDomain, key crypto.Signer, now time.Time, life time.Duration) (*x509.Certificate, error) {
	t, err := signingTemplate(td, "Signet root", key.Public())
	if err != nil {
		return nil, err
	}
	t.NotBefore, t.NotAfter = now.Add(-backdate).UTC(), now.Add(life).UTC()
	t.MaxPathLen = 1
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
