package stacks_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.step.sm/crypto/pemutil"

	"signet.example/ca"
	"signet.example/identity"
)

var td = spiffeid.RequireTrustDomainFromString("mesh.example")

const (
	ours    = "spiffe://mesh.example/shop/web"
	foreign = "spiffe://evil.example/shop/web"
)

// authority is a CA as `signet init` makes it.
type authority struct {
	dir     string
	opened  *ca.Authority
	issuer  *ca.Issuer
	root    *x509.Certificate
	issuing *x509.Certificate
}

func newAuthority(t *testing.T, confined bool) *authority {
	t.Helper()
	a := &authority{dir: filepath.Join(t.TempDir(), "ca")}
	password := []byte("of no use")
	if err := ca.InitWith(a.dir, td, password, time.Now(), ca.Options{ConfineURIs: confined}); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.opened, err = ca.OpenAuthority(a.dir, password, nil, nil); err != nil {
		t.Fatal(err)
	}
	log, err := ca.OpenLog(ca.LogPath(a.dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	set, err := identity.ParseRootSet(a.opened.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a.issuer, a.root, a.issuing = ca.NewIssuer(a.opened, log, ca.Profiles{}), set.Roots[0], a.opened.Issuing()
	return a
}

// svid is a leaf as the CA issues it.
func (a *authority) svid(t *testing.T) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	r := a.issuer.Issue(t.Context(), []ca.Request{{
		ID: spiffeid.RequireFromString(ours), CSR: csr, Profile: ca.ProfileWorkload, Requester: "spiffe://mesh.example/signet/agent/a",
	}})[0]
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return certificate(t, r.Chain[0], a.issuing, key)
}

// stolen is what a thief of the issuing key signs: another trust domain's name.
func (a *authority) stolen(t *testing.T) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(foreign)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: a.issuing.NotBefore, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{u},
	}, a.issuing, key.Public(), a.issuingKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, der, a.issuing, key)
}

func (a *authority) issuingKey(t *testing.T) crypto.Signer {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(a.dir, "issuing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(content) // the certificate
	key, err := pemutil.ParseKey(rest, pemutil.WithPassword([]byte("of no use")))
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		t.Fatalf("a key of type %T", key)
	}
	return signer
}

func certificate(t *testing.T, leaf []byte, issuing *x509.Certificate, key crypto.Signer) *tls.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf, issuing.Raw}, PrivateKey: key, Leaf: c}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// write puts a chain into a folder of its own, for programs that read files.
func write(t *testing.T, folder string, root *x509.Certificate, c *tls.Certificate) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, issuing := block("CERTIFICATE", c.Certificate[0]), block("CERTIFICATE", c.Certificate[1])
	for name, content := range map[string][]byte{
		"root.pem": block("CERTIFICATE", root.Raw), "issuing.pem": issuing, "leaf.pem": leaf,
		"chain.pem": append(append([]byte(nil), leaf...), issuing...), "key.pem": block("PRIVATE KEY", key),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
