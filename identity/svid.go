package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxCertBytes bounds each certificate of a peer's chain before anything is
// computed over it: an SVID of ours has about 600 bytes, one with the longest
// SPIFFE ID and an RSA key about 4 KiB.
const maxCertBytes = 16 << 10

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// CheckLeaf holds a certificate to X509-SVID 2 to 5 as a leaf. It is stricter
// than go-spiffe v2.9.0, which looks at neither key usage's presence, nor at
// extended key usage, nor at the URI as it was written. The issuer of ca and
// every verifier call it, so that what is refused is also never made.
func CheckLeaf(c *x509.Certificate) error {
	_, err := leafID(c)
	return err
}

// leafID is CheckLeaf with the identity that it found.
func leafID(c *x509.Certificate) (spiffeid.ID, error) {
	if err := checkCertificate(c); err != nil {
		return spiffeid.ID{}, err
	}
	for _, check := range []func(*x509.Certificate) error{checkLeafConstraints, checkLeafKeyUsage, checkLeafExtKeyUsage, checkSubject} {
		if err := check(c); err != nil {
			return spiffeid.ID{}, err
		}
	}
	id, ok, err := uriOf(c)
	switch {
	case err != nil:
		return spiffeid.ID{}, err
	case !ok: // X509-SVID 2
		return spiffeid.ID{}, errors.New("no URI SAN")
	case id.Path() == "": // X509-SVID 3.1, 5.2
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %q has no path: only signing certificates may have none", id)
	}
	return id, nil
}

// checkCertificate is what leaf and signing certificates have in common.
func checkCertificate(c *x509.Certificate) error {
	switch {
	case c == nil || len(c.Raw) == 0:
		return errors.New("no certificate")
	case len(c.Raw) > maxCertBytes:
		return fmt.Errorf("certificate of %d bytes: at most %d", len(c.Raw), maxCertBytes)
	case c.Version != 3:
		return fmt.Errorf("X.509 version %d: want 3", c.Version)
	case len(c.UnhandledCriticalExtensions) > 0: // RFC 5280 4.2
		return fmt.Errorf("critical extension %s is not known", c.UnhandledCriticalExtensions[0])
	case c.SerialNumber == nil || c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 159: // RFC 5280 4.1.2.2: positive, 20 octets with the sign bit
		return errors.New("serial number is not positive or longer than 20 octets")
	case c.NotAfter.Before(c.NotBefore):
		return errors.New("validity ends before it begins")
	}
	return checkPublicKey(c.PublicKey)
}

// The sizes of RSA keys that are accepted.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// checkPublicKey bounds what a peer can make us compute and refuses keys that
// are too weak.
func checkPublicKey(key any) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("ECDSA key on a curve of %d bits: want at least 256", bits)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("RSA key of %d bits: want %d to %d", n, minRSABits, maxRSABits)
		}
		return nil
	}
	return fmt.Errorf("public key of type %T is not accepted", key)
}

func checkLeafConstraints(c *x509.Certificate) error {
	if c.IsCA { // X509-SVID 4.1, 5.2
		return errors.New("a signing certificate (cA is true) must not authenticate")
	}
	if ext := findExtension(c, oidBasicConstraints); ext != nil && !c.BasicConstraintsValid {
		return errors.New("basic constraints cannot be read")
	}
	if findExtension(c, oidNameConstraints) != nil { // RFC 5280 4.2.1.10: only in a CA certificate
		return errors.New("name constraints in a leaf")
	}
	return nil
}

func checkLeafKeyUsage(c *x509.Certificate) error {
	if err := checkKeyUsageExtension(c); err != nil {
		return err
	}
	switch {
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0: // X509-SVID 4.3
		return errors.New("key usage lacks digitalSignature")
	case c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0: // X509-SVID 4.3, 5.2
		return errors.New("key usage of a leaf has keyCertSign or cRLSign")
	}
	return nil
}

func checkKeyUsageExtension(c *x509.Certificate) error {
	ext := findExtension(c, oidKeyUsage)
	if ext == nil || !ext.critical { // X509-SVID 4.3
		return errors.New("key usage is missing or not critical")
	}
	return nil
}

// checkLeafExtKeyUsage: X509-SVID 4.4. The extension may be absent, which does
// not narrow the key; present, it must have both.
func checkLeafExtKeyUsage(c *x509.Certificate) error {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return errors.New("extended key usage is present without both serverAuth and clientAuth")
	}
	return nil
}

// checkSubject: X509-SVID 3.1 with RFC 5280 4.2.1.6. Without a subject the SAN
// is the only name, and who cannot read it must not go on.
func checkSubject(c *x509.Certificate) error {
	san := findExtension(c, oidSubjectAltName)
	if emptySubject := bytes.Equal(c.RawSubject, []byte{0x30, 0x00}); emptySubject && (san == nil || !san.critical) {
		return errors.New("no subject, and the subject alternative name is not critical")
	}
	return nil
}

type extension struct {
	critical bool
	value    []byte
}

func findExtension(c *x509.Certificate, oid asn1.ObjectIdentifier) *extension {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return &extension{critical: e.Critical, value: e.Value}
		}
	}
	return nil
}

// uriOf returns the SPIFFE ID of the only URI SAN. It reads the extension's
// own bytes: c.URIs has been through url.Parse, which for one takes
// "SPIFFE://" for "spiffe://".
func uriOf(c *x509.Certificate) (spiffeid.ID, bool, error) {
	san := findExtension(c, oidSubjectAltName)
	if san == nil {
		return spiffeid.ID{}, false, nil
	}
	uris, err := rawURIs(san.value)
	switch {
	case err != nil:
		return spiffeid.ID{}, false, err
	case len(uris) == 0:
		return spiffeid.ID{}, false, nil
	case len(uris) > 1: // X509-SVID 2, 5.2
		return spiffeid.ID{}, false, fmt.Errorf("%d URI SANs: want exactly one", len(uris))
	}
	id, err := ParseID(uris[0])
	if err != nil {
		return spiffeid.ID{}, false, err
	}
	return id, true, nil
}

// rawURIs returns the uniformResourceIdentifier names, RFC 5280 4.2.1.6.
func rawURIs(der []byte) ([]string, error) {
	const tagURI = 6
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(der, &seq)
	if err != nil || len(rest) > 0 || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return nil, errors.New("subject alternative name cannot be read")
	}
	var uris []string
	for names := seq.Bytes; len(names) > 0; {
		var name asn1.RawValue
		if names, err = asn1.Unmarshal(names, &name); err != nil {
			return nil, errors.New("subject alternative name cannot be read")
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
			uris = append(uris, string(name.Bytes))
		}
	}
	return uris, nil
}
