package files

import (
	"crypto/x509"
	"fmt"
	"strings"

	pkcs12 "software.sslmate.com/src/go-pkcs12"
)

// The files of the layout pkcs12, for Java. Their password is Java's own word: what keeps
// others out is the file's mode, as for the key in PEM.
const (
	keystoreName  = "keystore.p12"
	trustName     = "truststore.p12"
	storePassword = "changeit"
)

// pkcs12Layout has key and chain in one file, and the roots of the own trust domain in another.
func pkcs12Layout(c Credentials) ([]file, error) {
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("pkcs12: %w", err)
	}
	chain, err := parsed(c.chain())
	if err != nil {
		return nil, fmt.Errorf("pkcs12: %w", err)
	}
	td, _, _ := strings.Cut(strings.TrimPrefix(c.ID, "spiffe://"), "/")
	roots, err := parsed(c.Trust[td])
	if err != nil {
		return nil, fmt.Errorf("pkcs12: %w", err)
	}
	trust, err := pkcs12.Modern2023.EncodeTrustStore(roots, storePassword)
	if err != nil {
		return nil, fmt.Errorf("pkcs12: %w", err)
	}
	store, err := pkcs12.Modern2023.Encode(key, chain[0], chain[1:], storePassword)
	if err != nil {
		return nil, fmt.Errorf("pkcs12: %w", err)
	}
	return []file{{name: trustName, content: trust}, {name: keystoreName, content: store}}, nil
}

func parsed(list [][]byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, der := range list {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}
