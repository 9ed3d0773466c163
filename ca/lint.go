package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

// linted is a request together with the exact bytes that are to be signed for
// it and the issuing key that is to sign them. Only lint makes one.
type linted struct {
	*checked
	template *x509.Certificate
	serial   string
	tbs      []byte // DER of the TBSCertificate
	by       *issuing
}

// lint makes the certificate without a signature and reads it as a stranger
// would: all except the signature is what the real one will be, byte for byte (the
// idea of RFC 9925, an unsigned certificate, but with the signature algorithm of
// the real one, which is part of the signed bytes).
func (i *Issuer) lint(c *checked, by *issuing, now time.Time) (*linted, error) {
	t, err := leafTemplate(c.id, i.prefix, by.cert, now, c.lifetime)
	if err != nil {
		return nil, err
	}
	if t.NotAfter.After(by.cert.NotAfter) {
		return nil, fmt.Errorf("%s until %s would outlive the issuing certificate, which ends %s", c.id, t.NotAfter, by.cert.NotAfter)
	}
	return i.lintTemplate(c, t, by)
}

func (i *Issuer) lintTemplate(c *checked, t *x509.Certificate, by *issuing) (*linted, error) {
	tbs, err := encode(t, by.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("draft %s: %w", c.id, err)
	}
	der, err := join(tbs, nil)
	if err != nil {
		return nil, fmt.Errorf("draft %s: %w", c.id, err)
	}
	draft, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("lint %s: %w", c.id, err)
	}
	l := &linted{checked: c, template: t, serial: SerialText(t.SerialNumber), tbs: tbs, by: by}
	for _, lint := range lints {
		if err := lint.check(draft, l); err != nil {
			return nil, fmt.Errorf("lint %s: %s (%s): %w", c.id, lint.name, lint.source, err)
		}
	}
	return l, nil
}

// leafTemplate is the one profile of leaves: X509-SVID 2 to 4. Nothing in it
// comes from the requester except the identity, which is the caller's.
func leafTemplate(id spiffeid.ID, prefix serialPrefix, issuer *x509.Certificate, now time.Time, lifetime time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial(prefix)
	if err != nil {
		return nil, err
	}
	return leafFields(id, serial, issuer, now, lifetime), nil
}

func leafFields(id spiffeid.ID, serial *big.Int, issuer *x509.Certificate, now time.Time, lifetime time.Duration) *x509.Certificate {
	issued := now.UTC().Truncate(time.Second)
	return &x509.Certificate{
		SerialNumber: serial,
		// D15: lifetimes count from issuance; what lies before is for slow clocks.
		NotBefore:             later(issued.Add(-min(backdate, lifetime)), issuer.NotBefore),
		NotAfter:              issued.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  id2urls(id),
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
}

// lints are what a leaf is held to beyond its template. identity.CheckLeaf is
// what every verifier of ours applies; the others are narrower than any standard.
var lints = []struct {
	name, source string
	check        func(c *x509.Certificate, l *linted) error
}{
	{"is an X509-SVID leaf", "X509-SVID 2-5", func(c *x509.Certificate, _ *linted) error { return identity.CheckLeaf(c) }},
	{"serial number", "RFC 5280 4.1.2.2", lintSerial},
	{"issuer and authority key id", "RFC 5280 4.1.2.4, 4.2.1.1", lintIssuer},
	{"validity", "D15", lintValidity},
	{"no subject", "RFC 5280 4.1.2.6", lintSubject},
	{"the only name is the SPIFFE ID", "X509-SVID 2", lintNames},
	{"extensions", "RFC 5280 4.2", lintExtensions},
	{"usages", "X509-SVID 4.3, 4.4", lintUsages},
	{"public key", "own", lintKey},
}

func lintSerial(c *x509.Certificate, l *linted) error {
	if n := len(c.SerialNumber.Bytes()); c.SerialNumber.Sign() <= 0 || n != serialLen || SerialText(c.SerialNumber) != l.serial {
		return fmt.Errorf("%d octets, want %d", n, serialLen)
	}
	return nil
}

func lintIssuer(c *x509.Certificate, l *linted) error {
	if !bytes.Equal(c.RawIssuer, l.by.cert.RawSubject) || !bytes.Equal(c.AuthorityKeyId, l.by.cert.SubjectKeyId) {
		return fmt.Errorf("not those of %s", l.by.serial)
	}
	if c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return fmt.Errorf("signature algorithm %s", c.SignatureAlgorithm)
	}
	return nil
}

func lintValidity(c *x509.Certificate, l *linted) error {
	switch by := l.by.cert; {
	case c.NotBefore.Before(by.NotBefore) || c.NotAfter.After(by.NotAfter):
		return fmt.Errorf("%s to %s is outside the issuer's", c.NotBefore, c.NotAfter)
	case c.NotAfter.Sub(c.NotBefore) > l.lifetime+backdate || c.NotAfter.Sub(c.NotBefore) < l.lifetime:
		return fmt.Errorf("%s to %s for a lifetime of %s", c.NotBefore, c.NotAfter, l.lifetime)
	}
	return nil
}

func lintSubject(c *x509.Certificate, _ *linted) error {
	if !bytes.Equal(c.RawSubject, []byte{0x30, 0x00}) {
		return fmt.Errorf("subject %q", c.Subject)
	}
	return nil
}

// lintNames compares the whole extension with what it must be: GeneralNames of
// one uniformResourceIdentifier [6], so that nothing hides beside it.
func lintNames(c *x509.Certificate, l *linted) error {
	want, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(l.id.String())}})
	if err != nil {
		return err
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSubjectAltName) && e.Critical && bytes.Equal(e.Value, want) {
			return nil
		}
	}
	return fmt.Errorf("subject alternative name is not %s alone, critical", l.id)
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// leafExtensions are all that a leaf has, each once, and whether it is critical.
	leafExtensions = map[string]bool{
		"2.5.29.15": true,  // key usage
		"2.5.29.37": false, // extended key usage
		"2.5.29.19": true,  // basic constraints
		"2.5.29.35": false, // authority key id
		"2.5.29.17": true,  // subject alternative name
	}
)

func lintExtensions(c *x509.Certificate, _ *linted) error {
	seen := map[string]bool{}
	for _, e := range c.Extensions {
		oid := e.Id.String()
		if critical, ok := leafExtensions[oid]; !ok || seen[oid] || critical != e.Critical {
			return fmt.Errorf("extension %s is unknown, repeated or of the wrong criticality", oid)
		}
		seen[oid] = true
	}
	if len(seen) != len(leafExtensions) {
		return fmt.Errorf("%d extensions, want %d", len(seen), len(leafExtensions))
	}
	return nil
}

func lintUsages(c *x509.Certificate, _ *linted) error {
	want := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, want) || len(c.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("key usage %b, extended %v", c.KeyUsage, c.ExtKeyUsage)
	}
	if c.IsCA || !c.BasicConstraintsValid {
		return fmt.Errorf("cA is %t", c.IsCA)
	}
	return nil
}

func lintKey(c *x509.Certificate, l *linted) error {
	got, err := hashKey(c.PublicKey)
	if err != nil || got != l.spki {
		return errors.New("not the key of the request")
	}
	return nil
}
