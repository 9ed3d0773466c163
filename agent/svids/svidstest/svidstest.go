// Package svidstest has a root, for tests, that signs the SVIDs and root sets which a
// host believes.
package svidstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
	"signet.example/identity"
)

// Domain is the trust domain of every root.
var Domain = spiffeid.RequireTrustDomainFromString("test.example")

// Root signs leaves and root sets.
type Root struct {
	t    testing.TB
	Key  *ecdsa.PrivateKey
	Cert *x509.Certificate
}

// NewRoot makes a root with a key of its own.
func NewRoot(t testing.TB) *Root {
	t.Helper()
	r := &Root{t: t}
	r.Cert, r.Key = r.Sign(Domain.ID(), &x509.Certificate{
		Subject: pkix.Name{CommonName: rand.Text()}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return r
}

// Issuing is an authority that r signs, which signs as r does.
func (r *Root) Issuing() *Root {
	r.t.Helper()
	i := &Root{t: r.t}
	i.Cert, i.Key = r.Sign(Domain.ID(), &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return i
}

// Sign signs a certificate with a new key, for an hour.
func (r *Root) Sign(id spiffeid.ID, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SerialNumber, c.URIs = big.NewInt(1), append(c.URIs, id.URL())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, by := r.Cert, r.Key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		r.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		r.t.Fatal(err)
	}
	return c, key
}

// Leaf is a certificate of the trust domain, for both sides of TLS.
func (r *Root) Leaf(path string) (*x509.Certificate, *ecdsa.PrivateKey) {
	r.t.Helper()
	return r.Sign(spiffeid.RequireFromPath(Domain, path), &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// Pin is that of the root's key.
func (r *Root) Pin() []byte {
	sum := sha256.Sum256(r.Cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// RootSet is a document that r signs.
func (r *Root) RootSet(number uint64, roots ...*x509.Certificate) []byte {
	r.t.Helper()
	doc, err := identity.RootSet{TrustDomain: Domain, Number: number, Roots: roots}.Sign(r.Key)
	if err != nil {
		r.t.Fatal(err)
	}
	return doc
}

// Trust is the root set with this root alone.
func (r *Root) Trust(number uint64) *svids.Trust {
	r.t.Helper()
	t, err := svids.ParseTrust(r.RootSet(number, r.Cert), r.Pin())
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// SVID is one that r issued for an entry.
func (r *Root) SVID(entry, path string) *svids.SVID {
	r.t.Helper()
	leaf, key := r.Leaf(path)
	s, err := svids.New(entry, [][]byte{leaf.Raw}, key, r.Trust(1), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}
