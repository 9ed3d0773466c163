package parts

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// HostCA is an operator's own authority, which gives hosts certificates.
type HostCA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	t    testing.TB
}

// NewHostCA makes one.
func NewHostCA(t testing.TB, name string) *HostCA {
	t.Helper()
	return (&HostCA{t: t}).Authority(name, nil)
}

// Authority makes one below ca, with its certificate as change makes it.
func (ca *HostCA) Authority(name string, change func(*x509.Certificate)) *HostCA {
	ca.t.Helper()
	key := ECKey(ca.t, elliptic.P256())
	return &HostCA{t: ca.t, Key: key, Cert: ca.Sign(key.Public(), key, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		if change != nil {
			change(c)
		}
	})}
}

// Sign gives a host's certificate, as change makes it, to a key. own signs it where
// there is no authority above.
func (ca *HostCA) Sign(public crypto.PublicKey, own crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	ca.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		ca.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "host"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := ca.Cert, ca.Key
	if parent == nil {
		parent, signer = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

// Of is an authority by another certificate and key, which may be those of none.
func (ca *HostCA) Of(cert *x509.Certificate, key crypto.Signer) *HostCA {
	return &HostCA{Cert: cert, Key: key, t: ca.t}
}

// SelfSigned is a host's certificate that its own key signed.
func SelfSigned(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	return (&HostCA{t: t}).Sign(key.Public(), key, nil)
}

// Host gives a host of that name a key and a certificate, in files of their own.
func (ca *HostCA) Host(name string) (certificate, key string) {
	ca.t.Helper()
	k := ECKey(ca.t, elliptic.P256())
	cert := ca.Sign(k.Public(), nil, func(c *x509.Certificate) { c.Subject.CommonName = name })
	return WriteHost(ca.t, k, cert)
}

// WriteHost writes a host's key and its certificates into files that nobody else can read.
func WriteHost(t testing.TB, key crypto.Signer, certs ...*x509.Certificate) (certificate, keyFile string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keyFile = filepath.Join(dir, "host.key")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return WriteCerts(t, certs...), keyFile
}

// WriteCerts writes certificates into one file.
func WriteCerts(t testing.TB, certs ...*x509.Certificate) string {
	t.Helper()
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	path := filepath.Join(t.TempDir(), "certs.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ECKey makes a key.
func ECKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
