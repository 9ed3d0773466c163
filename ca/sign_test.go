package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/ca"
)

func TestLintsFindWhatATemplateMustNotHave(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	w.issue(t, request(t, "/shop/first")) // adopts the authority
	if err := w.issuer.ForTestLint(request(t, "/shop/web"), noon, func(*x509.Certificate) {}); err != nil {
		t.Fatalf("the unspoilt template: %v", err)
	}
	other, _ := url.Parse("spiffe://mesh.example/shop/admin")
	for name, spoil := range map[string]func(*x509.Certificate){
		"a CA":                  func(c *x509.Certificate) { c.IsCA = true },
		"no basic constraints":  func(c *x509.Certificate) { c.BasicConstraintsValid = false },
		"another identity":      func(c *x509.Certificate) { c.URIs = []*url.URL{other} },
		"two identities":        func(c *x509.Certificate) { c.URIs = append(c.URIs, other) },
		"no identity":           func(c *x509.Certificate) { c.URIs = nil },
		"a DNS name":            func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} },
		"an address":            func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)} },
		"a subject":             func(c *x509.Certificate) { c.Subject.CommonName = "x" },
		"certSign":              func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"no key usage":          func(c *x509.Certificate) { c.KeyUsage = 0 },
		"keyEncipherment":       func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment },
		"no extended key usage": func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"serverAuth alone":      func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] },
		"code signing":          func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) },
		"an unknown extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		},
		"name constraints":            func(c *x509.Certificate) { c.PermittedURIDomains = []string{"mesh.example"} },
		"a subject key id":            func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} },
		"an OCSP server":              func(c *x509.Certificate) { c.OCSPServer = []string{"http://ocsp.example"} },
		"a short serial":              func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) },
		"a serial of 19 octets":       func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(c.SerialNumber, 8) },
		"an end behind the issuer's":  func(c *x509.Certificate) { c.NotAfter = noon.Add(8 * 24 * time.Hour) },
		"a begin before the issuer's": func(c *x509.Certificate) { c.NotBefore = noon.Add(-time.Hour) },
		"twice the lifetime":          func(c *x509.Certificate) { c.NotAfter = noon.Add(2 * time.Hour) },
		"half the lifetime":           func(c *x509.Certificate) { c.NotAfter = noon.Add(30 * time.Minute) },
	} {
		err := w.issuer.ForTestLint(request(t, "/shop/web"), noon, spoil)
		if err == nil || !strings.Contains(err.Error(), "lint") && !strings.Contains(err.Error(), "draft") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// brokenKey is a key store that does not answer.
type brokenKey struct{ crypto.Signer }

func (brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key store is gone")
}

func TestAFailedSignatureIsAbandoned(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	key := w.authority.ForTestKey()
	w.authority.ForTestSetKey(brokenKey{key})
	r := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0]
	if r.Err == nil || r.Chain != nil || errors.Is(r.Err, ca.ErrInvalid) || !strings.Contains(r.Err.Error(), "the key store is gone") {
		t.Errorf("err = %v", r.Err)
	}
	w.authority.ForTestSetKey(key)
	w.issue(t, request(t, "/shop/web")) // recovers without a restart
	var kinds []string
	for _, r := range w.records(t)[2:] {
		kinds = append(kinds, string(r.Kind))
		if r.Kind == ca.KindAbandoned && !strings.Contains(r.Reason, "the key store is gone") {
			t.Errorf("reason %q", r.Reason)
		}
	}
	if got := strings.Join(kinds, " "); got != "reserved abandoned reserved issued" {
		t.Errorf("records %s", got)
	}
}

// fickleKey begins to sign with another key than its own.
type fickleKey struct {
	crypto.Signer
	other crypto.Signer
	lies  bool
}

func (k *fickleKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.lies {
		return k.other.Sign(rand, digest, opts)
	}
	return k.Signer.Sign(rand, digest, opts)
}

// Also when a leaf of the same issuing certificate has been verified before.
func TestASignatureOfAnotherKeyIsNotAnswered(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	key := &fickleKey{Signer: w.authority.ForTestKey(), other: newKey(t), lies: true}
	w.authority.ForTestSetKey(key)
	for _, lies := range []bool{true, false, true, false} {
		key.lies = lies
		r := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0]
		if (r.Err != nil) != lies || (r.Chain == nil) != lies || lies && !strings.Contains(r.Err.Error(), "verify") {
			t.Errorf("lies %t: chain of %d, err %v", lies, len(r.Chain), r.Err)
		}
	}
	var kinds []string
	for _, r := range w.records(t)[2:] {
		kinds = append(kinds, string(r.Kind))
	}
	if got := strings.Join(kinds, " "); got != "reserved abandoned reserved issued reserved abandoned reserved issued" {
		t.Errorf("records %s", got)
	}
}

// What was verified of one issuing certificate says nothing of the next.
func TestEachIssuingCertificateIsVerifiedUpToTheRootByItsFirstLeaf(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	ours, key := w.authority.Issuing(), w.authority.ForTestKey()
	w.issue(t, request(t, "/shop/web"))
	foreign := filepath.Join(t.TempDir(), "ca")
	if err := ca.Init(foreign, td, password, noon); err != nil {
		t.Fatal(err)
	}
	other, err := ca.OpenAuthority(foreign, password, w.clock.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.authority.ForTestSetIssuing(other.Issuing(), other.ForTestKey())
	for range 2 {
		if r := w.issuer.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0]; r.Err == nil || r.Chain != nil {
			t.Errorf("a leaf that does not lead to the root was answered: %v", r.Err)
		}
	}
	w.authority.ForTestSetIssuing(ours, key)
	w.issue(t, request(t, "/shop/web"))
}

func TestAnIssuingCertificateThatIsValidWhenItsRootIsNotIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		from time.Time
		life time.Duration
		good bool
	}{
		"longer than it":  {noon, 3 * time.Hour, true},
		"just as long":    {noon, 2 * time.Hour, true},
		"ends before it":  {noon, 2*time.Hour - time.Second, false},
		"begins after it": {noon.Add(time.Second), 3 * time.Hour, false},
	} {
		if err := ca.ForTestOutliving(td, noon, c.from, c.life); (err == nil) != c.good {
			t.Errorf("a root that %s: %v", name, err)
		}
	}
}

func TestACSRSignedWithSHA1IsRefused(t *testing.T) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA1}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.ForTestParse(der, false); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "SHA1") {
		t.Errorf("err = %v", err)
	}
}
