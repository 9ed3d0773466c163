package parts

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"

	"go.step.sm/crypto/pemutil"
)

// FastKey is a file of PEM with its encrypted key sealed by [SealFast].
func FastKey(content, password []byte) ([]byte, error) {
	var out []byte
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		content = rest
		if block.Type == "ENCRYPTED PRIVATE KEY" {
			key, err := pemutil.ParseKey(pem.EncodeToMemory(block), pemutil.WithPassword(password))
			if err != nil {
				return nil, err
			}
			if block, err = SealFast(key, password); err != nil {
				return nil, err
			}
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	if out == nil {
		return nil, errors.New("no PEM")
	}
	return out, nil
}

// SealFast encrypts a key as the product does (PBES2, RFC 8018 A.4), with one round of
// PBKDF2 in place of 600,000: deriving a key is slow on purpose, and ten times slower
// under the race detector.
func SealFast(key crypto.PrivateKey, password []byte) (*pem.Block, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	salt, iv := random[:16], random[16:]
	derived, err := pbkdf2.Key(sha256.New, string(password), salt, 1, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	der = append(der, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(der, der)
	type algorithm struct {
		OID    asn1.ObjectIdentifier
		Params any
	}
	type kdf struct {
		Salt   []byte
		Rounds int
		PRF    algorithm
	}
	type scheme struct{ KDF, Cipher algorithm }
	out, err := asn1.Marshal(struct {
		Algorithm algorithm
		Data      []byte
	}{algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, scheme{
		algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, kdf{salt, 1, algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, asn1.NullRawValue}}},
		algorithm{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, iv},
	}}, der})
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: out}, nil
}
