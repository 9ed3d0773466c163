package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/pemutil"
)

// sealKey is a variable for tests alone: deriving a key is slow on purpose, and
// many times slower under the race detector. Reading takes any number of rounds.
var sealKey = func(key crypto.PrivateKey, password []byte) (*pem.Block, error) {
	return pemutil.Serialize(key, pemutil.WithPKCS8(true), pemutil.WithPassword(password))
}

// newKey makes an ECDSA P-256 key in the KMS and returns it with its file: PEM,
// PKCS#8, encrypted under the password (PBES2, AES-256, PBKDF2 with 600,000
// rounds). softkms keeps nothing itself.
func newKey(name string, password []byte) (crypto.Signer, *pem.Block, error) {
	var k softkms.SoftKMS
	made, err := k.CreateKey(&apiv1.CreateKeyRequest{Name: name, SignatureAlgorithm: apiv1.ECDSAWithSHA256})
	if err != nil {
		return nil, nil, fmt.Errorf("make key %s: %w", name, err)
	}
	block, err := sealKey(made.PrivateKey, password)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt key %s: %w", name, err)
	}
	signer, err := k.CreateSigner(&made.CreateSignerRequest)
	if err != nil {
		return nil, nil, fmt.Errorf("open key %s: %w", name, err)
	}
	return signer, block, nil
}

// openKey decrypts a key's PEM and makes sure that it is cert's.
func openKey(name string, content, password []byte, cert *x509.Certificate) (crypto.Signer, error) {
	block, err := firstBlock(content, "ENCRYPTED PRIVATE KEY")
	if err != nil { // an unencrypted key is refused, not used
		return nil, fmt.Errorf("open key %s: %w", name, err)
	}
	var k softkms.SoftKMS
	signer, err := k.CreateSigner(&apiv1.CreateSignerRequest{SigningKeyPEM: pem.EncodeToMemory(block), Password: password})
	if err != nil {
		return nil, fmt.Errorf("open key %s (wrong password?): %w", name, err)
	}
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("open key %s: it is not its certificate's", name)
	}
	return signer, nil
}

// parseCert reads the first certificate of a PEM file.
func parseCert(name string, content []byte) (*x509.Certificate, error) {
	block, err := firstBlock(content, "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", name, err)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", name, err)
	}
	return c, nil
}

func firstBlock(content []byte, kind string) (*pem.Block, error) {
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			return nil, errors.New("no PEM block " + kind)
		}
		if block.Type == kind {
			return block, nil
		}
		content = rest
	}
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
