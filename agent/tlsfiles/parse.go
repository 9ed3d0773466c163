package tlsfiles

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"signet.example/ads"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/sds"
)

// Bounds of what is read. A chain of RSA certificates has some 10 KiB, the public
// authorities of an operating system 250 KiB.
const (
	mostChain, mostKey, mostAuthorities = 256 << 10, 64 << 10, 1 << 20
	mostInChain, mostRoots              = 10, 1000
	leastRSA                            = 2048
)

// parseCertificate makes the secret of a chain and a key; ends is when its first
// certificate does.
func parseCertificate(name string, f proxy.TLSFiles, chain, key []byte, now time.Time) (_ *ads.Resource, ends time.Time, err error) {
	certs, err := parsePEM(chain, mostInChain)
	if err != nil {
		return nil, ends, fmt.Errorf("%s: %w", f.Certificate, err)
	}
	if err := current(certs[0], now); err != nil {
		return nil, ends, fmt.Errorf("%s: its first certificate %w", f.Certificate, err)
	}
	k, err := parseKey(key)
	if err != nil {
		return nil, ends, fmt.Errorf("%s: %w", f.Key, err)
	}
	var ders [][]byte
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	r, err := sds.CertificateSecret(name, ders, k)
	if err != nil {
		return nil, ends, err
	}
	return r, certs[0].NotAfter, nil
}

// parseAuthorities makes the secret of authorities; ends is when the last one does.
func parseAuthorities(name string, f proxy.TLSFiles, content []byte, now time.Time) (_ *ads.Resource, ends time.Time, err error) {
	certs, err := parsePEM(content, mostRoots)
	if err != nil {
		return nil, ends, fmt.Errorf("%s: %w", f.Authorities, err)
	}
	var ders [][]byte
	var last error
	for _, c := range certs {
		if err := current(c, now); err != nil {
			last = err
		} else if c.NotAfter.After(ends) {
			ends = c.NotAfter
		}
		ders = append(ders, c.Raw)
	}
	if ends.IsZero() {
		return nil, ends, fmt.Errorf("%s: no authority in it is good: the last one %w", f.Authorities, last)
	}
	r, err := sds.AuthoritiesSecret(name, ders)
	return r, ends, err
}

func current(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("ended at %s", plain.UTC(c.NotAfter))
	case now.Before(c.NotBefore):
		return fmt.Errorf("begins at %s", plain.UTC(c.NotBefore))
	}
	return nil
}

// parsePEM reads the certificates of a file. What else is in it is left there.
func parsePEM(content []byte, most int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(certs) == most {
			return nil, fmt.Errorf("there are more than %d certificates in it", most)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if certs == nil {
		return nil, errors.New("there is no certificate in PEM in it")
	}
	return certs, nil
}

// parseKey reads the first private key of a file. Its errors quote nothing of it.
func parseKey(content []byte) (crypto.PrivateKey, error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil, errors.New("there is no private key in PEM in it")
		}
		var key crypto.PrivateKey
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key in it is encrypted, and nobody is there to ask for the password: store it without, mode 0600")
		default:
			continue
		}
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key in it is encrypted, and nobody is there to ask for the password: store it without, mode 0600")
		}
		if err != nil {
			return nil, errors.New("the private key in it cannot be read")
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			if k.N.BitLen() < leastRSA {
				return nil, fmt.Errorf("an RSA key of %d bits; want at least %d", k.N.BitLen(), leastRSA)
			}
		case *ecdsa.PrivateKey:
		default: // Envoy takes no other
			return nil, fmt.Errorf("a key of type %T; want RSA or ECDSA", key)
		}
		return key, nil
	}
}
