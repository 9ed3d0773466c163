package svids

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"signet.example/identity"
)

// ErrBadAnswer is wrapped by the refusal of a certificate that the server sent
// and that is not what was asked for.
var ErrBadAnswer = errors.New("the server's answer is not usable")

// RefusedError is the server's refusal of one SVID of a batch.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return "refused by the server: " + e.Text }

// NewKey makes a P-256 key with the request that proves its possession. The
// request names nothing: names, lifetimes and usages come from the entry.
func NewKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signing request: %w", err)
	}
	return key, csr, nil
}

// New checks an issued chain and joins it with its key. The server is not
// believed: the first certificate must be for our key, and verify under our roots.
func New(entry string, chain [][]byte, key *ecdsa.PrivateKey, t *Trust, now time.Time) (*SVID, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	id, err := identity.VerifyChain(certs, t.Roots.TrustDomain, t.Pool, now, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%w: %s is for another key", ErrBadAnswer, id)
	}
	s := &SVID{Entry: entry, ID: id, Leaf: certs[0], Key: key, Issued: now, Chain: [][]byte{certs[0].Raw}}
	for _, c := range certs[1:] {
		if !isRoot(c) { // a root proves nothing, and is not sent on (X509-SVID 3.1)
			s.Chain = append(s.Chain, c.Raw)
		}
	}
	s.Due = renewalDue(now, s.Leaf.NotAfter, mrand.Float64())
	return s, nil
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("the chain is empty")
	}
	return certs, nil
}

func isRoot(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// Certificate is the SVID as the client side of a handshake takes it.
func (s *SVID) Certificate() *tls.Certificate {
	return &tls.Certificate{Certificate: s.Chain, PrivateKey: s.Key, Leaf: s.Leaf}
}
