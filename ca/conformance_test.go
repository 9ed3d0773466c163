package ca_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"signet.example/ca"
	"signet.example/identity"
	"signet.example/test/parts"
)

// A thief of the issuing key signs whatever he likes; name constraints decide
// what others believe of it (D14). Where URIs are not confined it is our own
// verifiers that refuse another trust domain's name, and plain path validation
// takes it: docs/DEVIATIONS.md says so.
func TestAStolenIssuingKeyIsConfinedToItsTrustDomain(t *testing.T) {
	plain := newWorld(t, ca.Profiles{})
	confined := newWorld(t, ca.Profiles{})
	confined.authority = newConfined(t)
	for name, w := range map[string]*world{"by default": plain, "URIs confined": confined} {
		t.Run(name, func(t *testing.T) { tryStolenKey(t, w, w == confined) })
	}
}

func newConfined(t *testing.T) *ca.Authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if err := ca.InitWith(dir, td, password, noon, ca.Options{ConfineURIs: true}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.OpenAuthority(dir, password, func() time.Time { return noon }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryStolenKey(t *testing.T, w *world, confined bool) {
	t.Helper()
	set, err := identity.ParseRootSet(w.authority.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	openssl := newOpenSSL(t, set.Roots[0], w.authority.Issuing())
	for _, c := range []struct {
		name  string
		names func(*x509.Certificate)
		// By whom it is accepted: all verifiers of ours, crypto/x509 and openssl.
		ours, byGo, byOpenSSL bool
	}{
		{"its own trust domain", uri("spiffe://mesh.example/shop/web"), true, true, true},
		{"another trust domain", uri("spiffe://evil.example/shop/web"), false, !confined, !confined},
		{"a subdomain", uri("spiffe://sub.mesh.example/shop/web"), false, true, !confined}, // crypto/x509 lets subdomains pass
		{"a parent domain", uri("spiffe://example/shop/web"), false, !confined, !confined},
		{"a DNS name", func(c *x509.Certificate) { c.DNSNames = []string{"mesh.example"} }, false, false, false},
		{"a DNS name beside its own", both(uri("spiffe://mesh.example/a"), func(c *x509.Certificate) { c.DNSNames = []string{"bank.example"} }), false, false, false},
		{"an IPv4 address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, false, false, false},
		{"an IPv6 address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IP(netip.MustParseAddr("fe80::1").AsSlice())} }, false, false, false},
		{"a mail address", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@mesh.example"} }, false, false, false},
		{"a mail address that cannot exist", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@none.invalid"} }, false, true, true},
		{"a CA below it", both(uri("spiffe://mesh.example"), func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), false, false, false},
	} {
		leaf := steal(t, w, c.names)
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: set.Pool(), Intermediates: identity.PoolOf(w.authority.Issuing()), CurrentTime: noon,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if leaf.IsCA {
			_, err = below(t, leaf).Verify(x509.VerifyOptions{
				Roots: set.Pool(), Intermediates: identity.PoolOf(w.authority.Issuing(), leaf), CurrentTime: noon,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
		}
		if (err == nil) != c.byGo {
			t.Errorf("%s: crypto/x509: %v", c.name, err)
		}
		chain := []*x509.Certificate{leaf, w.authority.Issuing()}
		if _, err := identity.VerifyChain(chain, td, set.Pool(), noon, x509.ExtKeyUsageAny); (err == nil) != c.ours {
			t.Errorf("%s: identity: %v", c.name, err)
		}
		if openssl == nil || leaf.IsCA { // openssl verify takes a CA as the end of a chain
			continue
		}
		if out, err := openssl.verify(t, leaf); (err == nil) != c.byOpenSSL {
			t.Errorf("%s: openssl: %v\n%s", c.name, err, out)
		}
	}
}

func uri(s string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, err := url.Parse(s)
		if err != nil {
			panic(err) // a constant of this file
		}
		c.URIs = []*url.URL{u}
	}
}

func both(a, b func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) { a(c); b(c) }
}

func steal(t *testing.T, w *world, names func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: noon.Add(-time.Minute), NotAfter: noon.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	names(c)
	der, err := x509.CreateCertificate(rand.Reader, c, w.authority.Issuing(), newKey(t).Public(), w.authority.ForTestKey())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// below signs a leaf with a CA whose key nobody has: only its place counts.
func below(t *testing.T, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	p := *parent
	key := newKey(t)
	p.PublicKey = key.Public()
	c := &x509.Certificate{SerialNumber: big.NewInt(8), NotBefore: noon, NotAfter: noon.Add(time.Hour)}
	uri("spiffe://mesh.example/x")(c)
	der, err := x509.CreateCertificate(rand.Reader, c, &p, newKey(t).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

type openSSL struct{ root, issuing, dir string }

func newOpenSSL(t *testing.T, root, issuing *x509.Certificate) *openSSL {
	t.Helper()
	parts.Program(t, "openssl")
	o := &openSSL{dir: t.TempDir()}
	o.root, o.issuing = o.write(t, "root.pem", root), o.write(t, "issuing.pem", issuing)
	return o
}

func (o *openSSL) write(t *testing.T, name string, c *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (o *openSSL) verify(t *testing.T, leaf *x509.Certificate) (string, error) {
	t.Helper()
	at := big.NewInt(noon.Unix()).String()
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-x509_strict", "-attime", at,
		"-CAfile", o.root, "-untrusted", o.issuing, o.write(t, "leaf.pem", leaf)).CombinedOutput()
	return string(out), err
}

func TestALeafIsWhatOthersExpect(t *testing.T) {
	w := newWorld(t, ca.Profiles{AllowRSA: true})
	set, err := identity.ParseRootSet(w.authority.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	openssl := newOpenSSL(t, set.Roots[0], w.authority.Issuing())
	for name, r := range map[string]ca.Request{
		"P-256": request(t, "/shop/a"), "P-384": requestFor(t, "/shop/b", curveKey(t, elliptic.P384())),
		"RSA": requestFor(t, "/shop/d", rsaKey(t, 2048)),
	} {
		leaf := w.issue(t, r)[0]
		if err := identity.CheckLeaf(leaf); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id, err := x509svid.IDFromCert(leaf); err != nil || id != r.ID {
			t.Errorf("%s: go-spiffe: %v, %v", name, id, err)
		}
		if len(leaf.Raw) > 1200 {
			t.Errorf("%s: %d bytes", name, len(leaf.Raw))
		}
		if openssl != nil {
			if out, err := openssl.verify(t, leaf); err != nil {
				t.Errorf("%s: openssl: %v\n%s", name, err, out)
			}
		}
	}
}

// TestTheIssuerCannotMakeAHostileLeaf asks for the identity and key of every
// hostile chain that our verifiers must reject; what comes out, if anything, is
// a leaf like any other.
func TestTheIssuerCannotMakeAHostileLeaf(t *testing.T) {
	w := newWorld(t, ca.Profiles{})
	set, err := identity.ParseRootSet(w.authority.RootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range hostileCases(t) {
		if c.Expect != "reject" || len(c.Chain) == 0 {
			continue
		}
		block, _ := pem.Decode([]byte(c.Chain[0]))
		if block == nil {
			continue
		}
		hostile, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue // Go cannot read it, so it cannot have come from here
		}
		for _, u := range hostile.URIs {
			id, err := spiffeid.FromString(u.String())
			if err != nil {
				continue // no caller can ask for it
			}
			r := request(t, "/x")
			r.ID = id
			result := w.issuer.Issue(t.Context(), []ca.Request{r})[0]
			if result.Err != nil {
				continue
			}
			leaf, err := x509.ParseCertificate(result.Chain[0])
			if err != nil {
				t.Fatal(err)
			}
			chain := []*x509.Certificate{leaf, w.authority.Issuing()}
			if _, err := identity.VerifyChain(chain, td, set.Pool(), noon, x509.ExtKeyUsageClientAuth); err != nil || id.TrustDomain() != td {
				t.Errorf("%s: made a leaf for %s: %v", c.ID, id, err)
			}
		}
	}
}

type hostileCase struct {
	ID     string   `json:"id"`
	Expect string   `json:"expect"`
	Chain  []string `json:"chain_pem_leaf_first"`
}

func hostileCases(t *testing.T) []hostileCase {
	t.Helper()
	content, err := os.ReadFile(parts.Shared(t, "testdata", "svid-hostile", "svid-hostile-dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []hostileCase
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}
