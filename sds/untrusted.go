package sds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"signet.example/ads"
)

// UntrustedSecret is a certificate that nobody trusts, with its key, to be put into the place
// of one that was taken back: Envoy goes on with a Secret that is merely removed (D13).
func UntrustedSecret(name string, now time.Time) (*ads.Resource, error) {
	chain, key, err := untrusted(now)
	if err != nil {
		return nil, err
	}
	return CertificateSecret(name, chain, key)
}

// UntrustedAuthorities is an authority that nobody has, in the place of those that were taken back.
func UntrustedAuthorities(name string, now time.Time) (*ads.Resource, error) {
	chain, _, err := untrusted(now)
	if err != nil {
		return nil, err
	}
	return AuthoritiesSecret(name, chain)
}

// untrusted makes one. Envoy takes none without a name.
func untrusted(now time.Time) (chain [][]byte, key *ecdsa.PrivateKey, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key that nobody trusts: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "revoked"}, SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate that nobody trusts: %w", err)
	}
	return [][]byte{der}, key, nil
}
