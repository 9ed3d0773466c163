package xdstest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"signet.example/ads"
)

// pki is a trust domain of the test's own.
type pki struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	// bundle is what listeners trust instead of root, in DER.
	bundle [][]byte
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{key: newKey(t)}
	p.root = p.sign(t, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "test.example"}},
	}, nil, p.key)
	return p
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (p *pki) sign(t *testing.T, c, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = c
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = serial
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// svid is a certificate for a SPIFFE ID.
func (p *pki) svid(t *testing.T, id string) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	leaf := p.sign(t, &x509.Certificate{
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.root, key)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// secrets serves every name that set refers to: a bundle for a trust domain's
// ID, an SVID for any other.
func (p *pki) secrets(t *testing.T, set *ads.Set) *ads.Set {
	t.Helper()
	byName := map[string]*ads.Resource{}
	for _, name := range sdsNames(t, set) {
		if byName[name] != nil {
			continue
		}
		s := p.svidSecret(t, name)
		if strings.Count(name, "/") == 2 {
			s = p.bundleSecret(name)
		}
		r, err := ads.NewResource(ads.SecretType, name, s)
		if err != nil {
			t.Fatal(err)
		}
		byName[name] = r
	}
	var rs []*ads.Resource
	for _, r := range byName {
		rs = append(rs, r)
	}
	out, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p *pki) bundleSecret(name string) *tlsv3.Secret {
	bundle := p.bundle
	if bundle == nil {
		bundle = [][]byte{p.root.Raw}
	}
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline("CERTIFICATE", bundle...)},
	}}
}

func (p *pki) svidSecret(t *testing.T, name string) *tlsv3.Secret {
	t.Helper()
	c := p.svid(t, name)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline("CERTIFICATE", c.Certificate[0]), PrivateKey: inline("PRIVATE KEY", key),
	}}}
}

func inline(kind string, ders ...[]byte) *corev3.DataSource {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}
