package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

// errBadAnswer is wrapped by the refusal of a certificate that the server sent
// and that is not what was asked for.
var errBadAnswer = errors.New("the server's answer is not usable")

// refusedError is the server's refusal of one SVID of a batch.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return "refused by the server: " + e.text }

// newKey makes a P-256 key with the request that proves its possession. The
// request names nothing: names, lifetimes and usages come from the entry.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
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

// newSVID checks an issued chain and joins it with its key. The server is not
// believed: the first certificate must be for our key, and verify under our roots.
func newSVID(entry string, chain [][]byte, key *ecdsa.PrivateKey, t *trust, now time.Time) (*svid, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadAnswer, err)
	}
	id, err := identity.VerifyChain(certs, t.roots.TrustDomain, t.pool, now, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadAnswer, err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%w: %s is for another key", errBadAnswer, id)
	}
	s := &svid{entry: entry, id: id, leaf: certs[0], key: key, issued: now, chain: [][]byte{certs[0].Raw}}
	for _, c := range certs[1:] {
		if !selfSigned(c) { // a root proves nothing, and is not sent on (X509-SVID 3.1)
			s.chain = append(s.chain, c.Raw)
		}
	}
	s.due = renewalDue(now, s.leaf.NotAfter, mrand.Float64())
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

func selfSigned(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// certificate is the SVID as the client side of a handshake takes it.
func (s *svid) certificate() *tls.Certificate {
	return &tls.Certificate{Certificate: s.chain, PrivateKey: s.key, Leaf: s.leaf}
}

// newHostKey makes a key by which the server can know this host again.
func newHostKey(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the host key: %w", err)
	}
	return hostCertificate(key, now)
}

// hostCertificate is a host key with a certificate that it signs itself: the
// handshake then proves its possession.
func hostCertificate(key *ecdsa.PrivateKey, now time.Time) (tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of the host key: %w", err)
	}
	// Name and times are not looked at: the server knows the key, not the
	// certificate. Envoy takes none without a name (proxyView.takeBack).
	template := &x509.Certificate{
		Subject:      pkix.Name{CommonName: "self-signed"},
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of the host key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serverVerifier checks who answered a handshake.
type serverVerifier func(tls.ConnectionState) error

// byTrust accepts a server of the trust domain, by the roots of the moment.
func byTrust(current func() *trust, now func() time.Time) serverVerifier {
	return func(cs tls.ConnectionState) error {
		t := current()
		return verifyServer(cs, t.roots.TrustDomain, t.pool, now())
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
