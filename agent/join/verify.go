package join

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
	"signet.example/identity"
)

// serverVerifier checks who answered a handshake.
type serverVerifier func(tls.ConnectionState) error

// byTrust accepts a server of the trust domain, by the roots of the moment.
func byTrust(current func() *svids.Trust, now func() time.Time) serverVerifier {
	return func(cs tls.ConnectionState) error {
		t := current()
		return verifyServer(cs, t.Roots.TrustDomain, t.Pool, now())
	}
}

func verifyServer(cs tls.ConnectionState, td spiffeid.TrustDomain, roots *x509.CertPool, now time.Time) error {
	id, err := identity.VerifyPeer(cs, td, roots, now, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return fmt.Errorf("the server's certificate: %w", err)
	}
	if _, ok := identity.ServerName(id); !ok {
		return fmt.Errorf("%s is not a server of %s", id, td)
	}
	return nil
}

// errPin: the server is another one than the token, or the root in trust, is of.
var errPin = errors.New("no certificate that the server sent has the key that is pinned")

// byPin accepts a server while nothing is trusted except the pin that came with
// the token: a root in its chain must have the pinned key, and the chain must
// verify under that root alone.
//
// The trust domain is td, or where that is zero the one that the server names.
func byPin(pin []byte, td spiffeid.TrustDomain) serverVerifier {
	return func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates {
			sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
			if subtle.ConstantTimeCompare(sum[:], pin) != 1 {
				continue
			}
			of := td
			if of.IsZero() {
				var err error
				if of, err = trustDomainOf(cs.PeerCertificates[0]); err != nil {
					return err
				}
			}
			return verifyServer(cs, of, identity.PoolOf(c), time.Now())
		}
		return errPin
	}
}

func trustDomainOf(leaf *x509.Certificate) (spiffeid.TrustDomain, error) {
	if len(leaf.URIs) != 1 {
		return spiffeid.TrustDomain{}, errors.New("the server's certificate has no SPIFFE ID")
	}
	id, err := identity.ParseID(leaf.URIs[0].String())
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("the server's certificate: %w", err)
	}
	return id.TrustDomain(), nil
}
