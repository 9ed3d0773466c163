package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
	"signet.example/identity"
)

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
	// Name and times are not looked at: the server knows the key, not the certificate.
	template := &x509.Certificate{
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
