package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
)

const (
	maxCSR = 16 << 10
	maxID  = 2048
)

// parseCSR takes the public key out of a CSR, and nothing else: names, usages
// and extensions come from the profile. The signature proves that the requester
// has the private key.
func parseCSR(der []byte, allowRSA bool) (crypto.PublicKey, error) {
	if len(der) == 0 || len(der) > maxCSR {
		return nil, fmt.Errorf("%w: CSR of %d bytes: want 1 to %d", ErrInvalid, len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: CSR: %w", ErrInvalid, err)
	}
	if err := checkPublicKey(csr.PublicKey, allowRSA); err != nil {
		return nil, err
	}
	// crypto/x509 takes SHA-1 in a CSR; we do not.
	if !slices.Contains(csrAlgorithms, csr.SignatureAlgorithm) {
		return nil, fmt.Errorf("%w: CSR is signed with %s", ErrInvalid, csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: CSR: no proof that the requester has the private key: %w", ErrInvalid, err)
	}
	return csr.PublicKey, nil
}

var csrAlgorithms = []x509.SignatureAlgorithm{
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// checkPublicKey accepts P-256, P-384, and RSA where allowed. That an
// ECDSA point lies on its curve was checked in parsing.
func checkPublicKey(key crypto.PublicKey, allowRSA bool) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("%w: ECDSA key on curve %s: want P-256 or P-384", ErrInvalid, k.Curve.Params().Name)
	case ed25519.PublicKey:
		return fmt.Errorf("%w: Ed25519 keys are not accepted: Envoy cannot serve a certificate of one; want ECDSA P-256 or P-384", ErrInvalid)
	case *rsa.PublicKey:
		if !allowRSA {
			return fmt.Errorf("%w: RSA keys are not accepted", ErrInvalid)
		}
		if n := k.N.BitLen(); n < 2048 || n > 8192 || k.N.Bit(0) == 0 || k.E != 65537 {
			return fmt.Errorf("%w: RSA key of %d bits with exponent %d: want 2048 to 8192 and 65537", ErrInvalid, n, k.E)
		}
		return nil
	}
	return fmt.Errorf("%w: public key of type %T is not accepted", ErrInvalid, key)
}
