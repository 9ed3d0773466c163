package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

func TestGoodLeafIsTaken(t *testing.T) {
	root := newRoot(t, nil)
	for what, change := range map[string]func(*x509.Certificate){
		"as we issue it":         nil,
		"with a subject":         func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "web"} },
		"with DNS names":         func(c *x509.Certificate) { c.DNSNames = []string{"web.shop.example"} },
		"without extended usage": func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"with key agreement":     func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyAgreement },
		"serial of 20 octets":    func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 158) },
	} {
		if err := identity.CheckLeaf(root.leaf(t, change)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A10: each of these is against a sentence of the X509-SVID document
// or RFC 5280, and most of them pass through go-spiffe v2.9.0.
func TestBadLeafIsRefused(t *testing.T) {
	root := newRoot(t, nil)
	for what, change := range map[string]func(*x509.Certificate){
		"X509-01 no URI":          func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"a.example"} },
		"X509-01 no names at all": func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: "a"} },
		"X509-02 two URIs":        func(c *x509.Certificate) { c.URIs = append(c.URIs, mustURL(t, "https://a.example")) },
		"X509-03 no path":         func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://prod.example")} },
		"X509-04 no subject, SAN not critical": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{sanWith(t, false, "spiffe://prod.example/web")}
		},
		"X509-08 cA":                     func(c *x509.Certificate) { c.IsCA = true },
		"X509-10 no key usage":           func(c *x509.Certificate) { c.KeyUsage = 0 },
		"X509-10 key usage not critical": func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{keyUsage(t, false, 0x80)} },
		"X509-12 no digitalSignature":    func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
		"X509-13 keyCertSign":            func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{keyUsage(t, true, 0x84)} },
		"X509-13 cRLSign":                func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"X509-15 serverAuth only":        func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] },
		"X509-15 clientAuth only":        func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] },
		"X509-15 any":                    func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"X509-15 an unknown one": func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 99}}
		},
		"X509-18 scheme in capitals": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{sanWith(t, true, "SPIFFE://prod.example/web")}
		},
		"X509-18 another scheme":  func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "https://prod.example/web")} },
		"ID-12 URI of 2049 bytes": func(c *x509.Certificate) { c.URIs[0].Path = "/" + strings.Repeat("a", 2028) },
		"RFC 5280 4.2 unknown critical": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
		"RFC 5280 4.2.1.10 name constraints in a leaf": func(c *x509.Certificate) { c.PermittedURIDomains = []string{"prod.example"} },
		"a megabyte": func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: strings.Repeat("a", 1<<20)} },
	} {
		if err := identity.CheckLeaf(root.leaf(t, change)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := identity.CheckLeaf(nil); err == nil {
		t.Error("nil was taken")
	}
	if err := identity.CheckLeaf(&x509.Certificate{}); err == nil {
		t.Error("a certificate that was never parsed was taken")
	}
}

func keyUsage(t *testing.T, critical bool, bits byte) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(asn1.BitString{Bytes: []byte{bits}, BitLength: 8})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: critical, Value: value}
}

func TestWeakKeysAreRefused(t *testing.T) {
	root := newRoot(t, nil)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa1024 := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	rsaHuge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 16383, 1), E: 65537}
	tmpl := root.leaf(t, nil)
	for what, key := range map[string]any{"P-224": p224.Public(), "RSA 1024": rsa1024, "RSA 16384": rsaHuge} {
		if err := identity.CheckLeaf(create(t, tmpl, root.cert, key, root.key)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func verify(chain []*x509.Certificate, root authority) error {
	_, err := identity.VerifyChain(chain, td, identity.PoolOf(root.cert), noon, x509.ExtKeyUsageServerAuth)
	return err
}

func TestChainOfOurOwnShapeVerifiesToItsID(t *testing.T) {
	root := newRoot(t, nil)
	ca := root.intermediate(t, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedURIDomains = true, []string{"prod.example"}
	})
	chain := []*x509.Certificate{ca.leaf(t, nil), ca.cert}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		id, err := identity.VerifyChain(chain, td, identity.PoolOf(root.cert), noon, usage)
		if err != nil || id.String() != "spiffe://prod.example/shop/web" {
			t.Errorf("usage %d: %q, %v", usage, id, err)
		}
	}
	if _, err := identity.VerifyChain(chain, td, identity.PoolOf(root.cert), noon, x509.ExtKeyUsageCodeSigning); err == nil {
		t.Error("good for code signing")
	}
}

// A forgotten argument must not become the machine's roots or clock.
func TestVerifyChainNeedsDomainRootsAndTime(t *testing.T) {
	root := newRoot(t, nil)
	chain := []*x509.Certificate{root.leaf(t, nil)}
	pool := identity.PoolOf(root.cert)
	for what, call := range map[string]func() (spiffeid.ID, error){
		"no roots":   func() (spiffeid.ID, error) { return identity.VerifyChain(chain, td, nil, noon, 0) },
		"empty pool": func() (spiffeid.ID, error) { return identity.VerifyChain(chain, td, identity.PoolOf(), noon, 0) },
		"no time":    func() (spiffeid.ID, error) { return identity.VerifyChain(chain, td, pool, time.Time{}, 0) },
		"no domain":  func() (spiffeid.ID, error) { return identity.VerifyChain(chain, spiffeid.TrustDomain{}, pool, noon, 0) },
		"no chain":   func() (spiffeid.ID, error) { return identity.VerifyChain(nil, td, pool, noon, 0) },
		"nil leaf":   func() (spiffeid.ID, error) { return identity.VerifyChain([]*x509.Certificate{nil}, td, pool, noon, 0) },
		"nil signer": func() (spiffeid.ID, error) {
			return identity.VerifyChain([]*x509.Certificate{chain[0], nil}, td, pool, noon, 0)
		},
	} {
		if id, err := call(); err == nil {
			t.Errorf("%s: %q", what, id)
		}
	}
	// Nil is the machine's roots to crypto/x509: they must not even be asked.
	if _, err := identity.VerifyChain(chain, td, nil, noon, 0); err == nil || !strings.Contains(err.Error(), "are needed") {
		t.Errorf("no roots: %v", err)
	}
}

// A self-signed leaf vouches for itself alone, even where it was made a root.
func TestALeafIsNoRootOfItsOwn(t *testing.T) {
	key := newKey(t)
	tmpl := newRoot(t, nil).leaf(t, func(c *x509.Certificate) { c.Subject.CommonName = "own" })
	tmpl.PublicKey = key.Public()
	own := create(t, tmpl, tmpl, key.Public(), key)
	if id, err := identity.VerifyChain([]*x509.Certificate{own}, td, identity.PoolOf(own), noon, 0); err == nil {
		t.Errorf("verified as %q", id)
	}
}

// A09.
func TestTrustDomainsAreNotConfused(t *testing.T) {
	ours := newRoot(t, nil)
	other := func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://other.example")} }
	theirs := newRoot(t, other)
	foreign := func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://other.example/shop/web")} }
	sub := func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://sub.prod.example/shop/web")} }
	theirsBelowUs := ours.intermediate(t, other)
	for what, chain := range map[string][]*x509.Certificate{
		"our CA signs their ID":           {ours.leaf(t, foreign)},
		"their CA signs our ID":           {theirs.leaf(t, nil)},
		"their root is sent along":        {theirs.leaf(t, nil), theirs.cert},
		"a subdomain of ours":             {ours.leaf(t, sub)},
		"our root signed a CA of theirs":  {theirsBelowUs.leaf(t, nil), theirsBelowUs.cert},
		"the CA itself as a leaf":         {ours.cert},
		"a stranger's certificate beside": {ours.leaf(t, nil), theirs.cert},
	} {
		if err := verify(chain, ours); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	// Even in a pool that somebody merged, their root signs nothing of ours.
	merged := identity.PoolOf(ours.cert, theirs.cert)
	if id, err := identity.VerifyChain([]*x509.Certificate{theirs.leaf(t, nil)}, td, merged, noon, 0); err == nil {
		t.Errorf("merged pool: %q", id)
	}
}

func TestSigningCertificatesAreHeldToTheirRules(t *testing.T) {
	root := newRoot(t, nil)
	for what, change := range map[string]func(*x509.Certificate){
		"X509-06 a path":               func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://prod.example/ca")} },
		"X509-02 two URIs":             func(c *x509.Certificate) { c.URIs = append(c.URIs, mustURL(t, "spiffe://prod.example")) },
		"X509-08 cA is false":          func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero, c.KeyUsage = false, false, x509.KeyUsageCertSign },
		"X509-10 no key usage":         func(c *x509.Certificate) { c.KeyUsage = 0 },
		"X509-11 no keyCertSign":       func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature },
		"X509-09 confined to another":  func(c *x509.Certificate) { c.PermittedURIDomains = []string{"other.example"} },
		"X509-09 confined to subs":     func(c *x509.Certificate) { c.PermittedURIDomains = []string{".prod.example"} },
		"X509-09 confined to a parent": func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example"} },
		"X509-09 excluded":             func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"prod.example"} },
		"RFC 5280 expired":             func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) },
		"65 constraints": func(c *x509.Certificate) {
			for range 65 {
				c.PermittedURIDomains = append(c.PermittedURIDomains, "prod.example")
			}
		},
	} {
		ca := root.intermediate(t, change)
		if err := verify([]*x509.Certificate{ca.leaf(t, nil), ca.cert}, root); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	badRoot := newRoot(t, func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://prod.example/root")} })
	if err := verify([]*x509.Certificate{badRoot.leaf(t, nil)}, badRoot); err == nil {
		t.Error("a root with a path was taken")
	}
}

func TestChainsThatCostTooMuchAreRefused(t *testing.T) {
	root := newRoot(t, nil)
	leaf := root.leaf(t, nil)
	long := []*x509.Certificate{leaf}
	for range 8 {
		long = append(long, root.cert)
	}
	if err := verify(long, root); err == nil {
		t.Error("9 certificates were taken")
	}
	if err := verify(long[:8], root); err != nil {
		t.Errorf("8 certificates: %v", err)
	}
	many := root.leaf(t, func(c *x509.Certificate) {
		for range 65 {
			c.IPAddresses = append(c.IPAddresses, net.IPv4(127, 0, 0, 1))
		}
	})
	if err := verify([]*x509.Certificate{many}, root); err == nil {
		t.Error("66 names were taken")
	}
}

func TestLeafIsGoodFromNotBeforeToNotAfter(t *testing.T) {
	root := newRoot(t, nil)
	leaf := root.leaf(t, nil)
	for at, want := range map[time.Time]bool{
		leaf.NotBefore: true, leaf.NotAfter: true,
		leaf.NotBefore.Add(-time.Second): false, leaf.NotAfter.Add(time.Second): false,
	} {
		_, err := identity.VerifyChain([]*x509.Certificate{leaf}, td, identity.PoolOf(root.cert), at, 0)
		if (err == nil) != want {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func FuzzCheckLeaf(f *testing.F) {
	root := newRoot(f, nil)
	f.Add(root.leaf(f, nil).Raw)
	f.Add(root.cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if identity.CheckLeaf(c) != nil {
			return
		}
		if len(c.URIs) != 1 || c.IsCA || c.URIs[0].Scheme != "spiffe" {
			t.Errorf("taken: %d URIs, cA %v", len(c.URIs), c.IsCA)
		}
	})
}

func BenchmarkVerifyChain(b *testing.B) {
	root := newRoot(b, nil)
	ca := root.intermediate(b, nil)
	chain := []*x509.Certificate{ca.leaf(b, nil), ca.cert}
	pool := identity.PoolOf(root.cert)
	for b.Loop() {
		if _, err := identity.VerifyChain(chain, td, pool, noon, x509.ExtKeyUsageServerAuth); err != nil {
			b.Fatal(err)
		}
	}
}
