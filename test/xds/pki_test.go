package xdstest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"signet.example/ads"
	"signet.example/proxy"
)

// pki is a trust domain of the test's own.
type pki struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	// bundle is what listeners trust instead of root, in DER.
	bundle [][]byte
	// foreign signs what comes of files, and is the authority in each; nil until it is needed.
	foreign *pki
}

// files is the authority of what comes of files.
func (p *pki) files(t *testing.T) *pki {
	t.Helper()
	if p.foreign == nil {
		p.foreign = newPKI(t)
	}
	return p.foreign
}

// named is a certificate for DNS names, and whatever else change gives it.
func (p *pki) named(t *testing.T, change func(*x509.Certificate), names ...string) *tls.Certificate {
	t.Helper()
	key, template := newKey(t), &x509.Certificate{
		Subject: pkix.Name{CommonName: "of a file"}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	leaf := p.sign(t, template, p.root, key)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// fileSecret is what an agent makes of files: a certificate for the name of its file.
func (p *pki) fileSecret(t *testing.T, name string, f proxy.TLSFiles) *tlsv3.Secret {
	t.Helper()
	if f.Authorities != "" {
		return p.files(t).bundleSecret(name)
	}
	return certificateSecret(t, name, p.files(t).named(t, nil, strings.TrimSuffix(path.Base(f.Certificate), ".pem")))
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
		var s *tlsv3.Secret
		if f, ok := proxy.ParseTLSFiles(name); ok {
			s = p.fileSecret(t, name, f)
		} else if strings.Count(name, "/") == 2 {
			s = p.bundleSecret(name)
		} else {
			s = p.svidSecret(t, name)
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
	return certificateSecret(t, name, p.svid(t, name))
}

func certificateSecret(t *testing.T, name string, c *tls.Certificate) *tlsv3.Secret {
	t.Helper()
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
