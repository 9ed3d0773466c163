package x509pop_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/attestation/x509pop"
	"signet.example/test/parts"
)

// challenge stands for a connection; nodes has the tests of what it is made of.
var challenge = bytes.Repeat([]byte{42}, 32)

func verifier(t testing.TB, roots ...*x509.Certificate) *x509pop.Verifier {
	t.Helper()
	v, err := x509pop.Config{Roots: parts.WriteCerts(t, roots...)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// prove is what a host with these files would send.
func prove(t testing.TB, key crypto.Signer, certs ...*x509.Certificate) x509pop.Evidence {
	t.Helper()
	certFile, keyFile := parts.WriteHost(t, key, certs...)
	e, err := x509pop.Host{Certificate: certFile, Key: keyFile}.Prove(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func uri(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func TestAHostsCertificateShowsItsNamesAndItsAuthorities(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	below := root.Authority("below", nil)
	v := verifier(t, parts.NewHostCA(t, "another").Cert, root.Cert)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": parts.ECKey(t, elliptic.P256()), "P-384": parts.ECKey(t, elliptic.P384()), "Ed25519": edKey, "RSA": rsaKey} {
		leaf := below.Sign(key.Public(), nil, func(c *x509.Certificate) {
			c.SerialNumber = big.NewInt(0x0a1b2c)
			c.Subject = pkix.Name{CommonName: "web-01: eu", Organization: []string{"shop"}}
			c.DNSNames, c.URIs = []string{"Web-01.shop.example"}, []*url.URL{uri(t, "https://racks.example/a?b=c")}
		})
		e := prove(t, key, leaf, below.Cert)
		if n, err := v.Units(e); n != 3 || err != nil {
			t.Errorf("%s: %d units, %v: want one for each signature", name, n, err)
		}
		sels, known, err := v.Verify(e, challenge, time.Now())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := []string{
			"x509pop:subject:cn:web-01: eu", "x509pop:serialnumber:a1b2c", "x509pop:san:dns:web-01.shop.example", "x509pop:san:uri:https://racks.example/a?b=c",
			"x509pop:ca:fingerprint:" + fingerprint(below.Cert), "x509pop:ca:fingerprint:" + fingerprint(root.Cert),
		}
		if d := cmp.Diff(want, sels.Strings()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		// Renewed by the same key it is the same host; the root may be sent, and does not count.
		renewed := prove(t, key, below.Sign(key.Public(), nil, nil), below.Cert, root.Cert)
		if _, again, err := v.Verify(renewed, challenge, time.Now()); err != nil || !bytes.Equal(again, known) || len(known) != sha256.Size {
			t.Errorf("%s: known by %x, then by %x, %v", name, known, again, err)
		}
	}
}

func TestACommonNameBelowAConfinedAuthorityIsNoSelector(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	confined := root.Authority("confined", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"a.example"}, true
	})
	v, key := verifier(t, root.Cert), parts.ECKey(t, elliptic.P256())
	leaf := confined.Sign(key.Public(), nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames = "db.b.example", []string{"web.a.example"}
	})
	sels, _, err := v.Verify(prove(t, key, leaf, confined.Cert), challenge, time.Now())
	if err != nil || strings.Contains(strings.Join(sels.Strings(), " "), "b.example") || !slices.Contains(sels.Strings(), "x509pop:san:dns:web.a.example") {
		t.Errorf("%v, %v", sels.Strings(), err)
	}
}

func TestBelowAConfinedAuthorityOnlyNamesOfAFormThatItIsConfinedToAreSelectors(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	key := parts.ECKey(t, elliptic.P256())
	for what, c := range map[string]struct {
		confine func(*x509.Certificate)
		want    []string
	}{
		"permitted DNS names":        {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"a.example"} }, []string{"x509pop:san:dns:web.a.example"}},
		"permitted hosts of URIs":    {func(c *x509.Certificate) { c.PermittedURIDomains = []string{".a.example"} }, []string{"x509pop:san:uri:https://web.a.example/host"}},
		"excluded DNS names alone":   {func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"b.example"} }, nil},
		"permitted mail names alone": {func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"a.example"} }, nil},
	} {
		confined := root.Authority("confined", func(a *x509.Certificate) {
			c.confine(a)
			a.PermittedDNSDomainsCritical = true
		})
		leaf := confined.Sign(key.Public(), nil, func(l *x509.Certificate) {
			l.Subject.CommonName, l.SerialNumber = "web", big.NewInt(7)
			l.DNSNames, l.URIs = []string{"web.a.example"}, []*url.URL{{Scheme: "https", Host: "web.a.example", Path: "/host"}}
		})
		sels, _, err := verifier(t, root.Cert).Verify(prove(t, key, leaf, confined.Cert), challenge, time.Now())
		got := slices.DeleteFunc(sels.Strings(), func(s string) bool { return strings.HasPrefix(s, "x509pop:ca:") })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.want)
		}
	}
}

func TestHostileEvidenceIsRefused(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	below, lower := root.Authority("below", nil), (*parts.HostCA)(nil)
	lower = below.Authority("lower", nil)
	stranger := parts.NewHostCA(t, "root") // the same name, another key
	v := verifier(t, root.Cert)
	key, other := parts.ECKey(t, elliptic.P256()), parts.ECKey(t, elliptic.P256())
	good := root.Sign(key.Public(), nil, nil)
	signed := func(k crypto.Signer, about []byte) []byte {
		t.Helper()
		s, err := x509pop.Sign(k, about)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mine := signed(key, challenge)
	hash := sha256.Sum256(challenge)
	bare, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(ca *parts.HostCA, change func(*x509.Certificate)) *x509.Certificate {
		return ca.Sign(key.Public(), key, change)
	}
	chain := func(certs ...*x509.Certificate) x509pop.Evidence {
		e := x509pop.Evidence{Signature: mine}
		for _, c := range certs {
			e.Chain = append(e.Chain, c.Raw)
		}
		return e
	}
	of := func(public crypto.PublicKey) x509pop.Evidence { return chain(root.Sign(public, nil, nil)) }
	now := time.Now()
	if _, _, err := v.Verify(chain(good), challenge, now); err != nil {
		t.Fatalf("what the others differ from: %v", err)
	}
	if _, _, err := v.Verify(chain(leaf(below, nil)), challenge, now); err == nil || !strings.Contains(err.Error(), "put its certificate below the host's") {
		t.Errorf("an intermediate's is not sent: %v", err)
	}
	selfSigned := parts.SelfSigned(t, key)
	beyond := root.Authority("no path", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	beyondIt := beyond.Authority("beyond", nil)
	confined := root.Authority("confined", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"a.example"} })
	mailOnly := root.Authority("mail", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })
	noSign := root.Authority("no signing", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	old := root.Authority("old", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	asRoot := below.Authority("root", nil)
	twice := below.Authority("below", nil)
	var names []string
	for range 33 {
		names = append(names, "a.example")
	}
	for name, e := range map[string]x509pop.Evidence{
		"nothing":                         {},
		"no certificate":                  {Signature: mine},
		"no signature":                    {Chain: [][]byte{good.Raw}},
		"no DER":                          {Chain: [][]byte{[]byte("no certificate")}, Signature: mine},
		"more behind the DER":             {Chain: [][]byte{append(bytes.Clone(good.Raw), 0)}, Signature: mine},
		"a certificate that is too large": {Chain: [][]byte{make([]byte, 8<<10+1)}, Signature: mine},
		"a signature that is too large":   {Chain: [][]byte{good.Raw}, Signature: make([]byte, 1<<10+1)},
		"another key's signature":         {Chain: [][]byte{good.Raw}, Signature: signed(other, challenge)},
		"another connection's signature":  {Chain: [][]byte{good.Raw}, Signature: signed(key, bytes.Repeat([]byte{43}, 32))},
		"a signature over no context":     {Chain: [][]byte{good.Raw}, Signature: bare},
		"a longer challenge":              {Chain: [][]byte{good.Raw}, Signature: signed(key, append(bytes.Clone(challenge), 0))},
		"too many certificates":           chain(leaf(lower, nil), lower.Cert, below.Cert, stranger.Cert, root.Cert),
		"one between is missing":          chain(leaf(lower, nil), below.Cert),
		"the wrong order":                 chain(leaf(lower, nil), below.Cert, lower.Cert),
		"one that does not belong":        chain(good, below.Cert),
		"self-signed":                     chain(selfSigned),
		"an authority of the root's name": chain(leaf(stranger, nil)),
		"and its certificate":             chain(leaf(stranger, nil), stranger.Cert),
		"an intermediate of that name":    chain(leaf(asRoot, nil), asRoot.Cert, below.Cert),
		"one name twice":                  chain(leaf(twice, nil), twice.Cert, below.Cert),
		"an unknown authority":            chain(leaf(parts.NewHostCA(t, "unknown"), nil)),
		"the root itself":                 chain(root.Cert),
		"an authority":                    chain(leaf(root, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })),
		"a host below a host":             chain(leaf(root.Of(good, key), func(c *x509.Certificate) { c.Subject.CommonName = "lower" }), good),
		"expired":                         chain(leaf(root, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })),
		"not valid yet":                   chain(leaf(root, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) })),
		"below one that is expired":       chain(leaf(old, nil), old.Cert),
		"no usage":                        chain(leaf(root, func(c *x509.Certificate) { c.KeyUsage = 0 })),
		"no extended usage":               chain(leaf(root, func(c *x509.Certificate) { c.ExtKeyUsage = nil })),
		"for servers":                     chain(leaf(root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"for everything":                  chain(leaf(root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })),
		"for key agreement":               chain(leaf(root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })),
		"an SVID":                         chain(leaf(root, func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "spiffe://test.example/web")} })),
		"an SVID in other letters":        chain(leaf(root, func(c *x509.Certificate) { c.URIs = []*url.URL{uri(t, "SPIFFE://test.example/web")} })),
		"two common names": chain(leaf(root, func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "db"}, {Type: []int{2, 5, 4, 3}, Value: "web"}}
			c.Subject.CommonName = ""
		})),
		"too many names": chain(leaf(root, func(c *x509.Certificate) { c.DNSNames = names })),
		"a critical extension": chain(leaf(root, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		})),
		"beyond the path's length":     chain(leaf(beyondIt, nil), beyondIt.Cert, beyond.Cert),
		"a name outside":               chain(leaf(confined, func(c *x509.Certificate) { c.DNSNames = []string{"db.b.example"} }), confined.Cert),
		"below an authority for mail":  chain(leaf(mailOnly, nil), mailOnly.Cert),
		"below one that must not sign": chain(leaf(noSign, nil), noSign.Cert),
		"P-521":                        of(parts.ECKey(t, elliptic.P521()).Public()),
		"P-224":                        of(parts.ECKey(t, elliptic.P224()).Public()),
		"RSA of 1024 bits":             of(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}),
		"RSA of 8192 bits":             of(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8191), E: 65537}),
		"RSA with a large exponent":    of(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 1<<31 - 1}),
	} {
		if sels, known, err := v.Verify(e, challenge, now); err == nil || sels != nil || known != nil {
			t.Errorf("%s: %v, %v", name, sels.Strings(), err)
		}
	}
	// Where the roots are several of one name, each is a candidate, and is paid for.
	twins := verifier(t, root.Cert, stranger.Cert)
	if n, err := twins.Units(chain(good)); n != 3 || err != nil {
		t.Errorf("%d units, %v", n, err)
	}
}

// TestNoHostileChainIsAHosts: the chains that others collected to break path
// validation, each with the root that it names.
func TestNoHostileChainIsAHosts(t *testing.T) {
	raw, err := os.ReadFile(parts.Shared(t, "testdata", "x509-limbo", "limbo-dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var limbo struct {
		Testcases []struct {
			ID            string   `json:"id"`
			Trusted       []string `json:"trusted_certs"`
			Intermediates []string `json:"untrusted_intermediates"`
			Peer          string   `json:"peer_certificate"`
			Time          string   `json:"validation_time"`
			Expected      string   `json:"expected_result"`
		} `json:"testcases"`
	}
	if err := json.Unmarshal(raw, &limbo); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, c := range limbo.Testcases {
		if c.Expected != "FAILURE" {
			continue
		}
		roots := filepath.Join(t.TempDir(), "roots.pem")
		if err := os.WriteFile(roots, []byte(strings.Join(c.Trusted, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := x509pop.Config{Roots: roots}.Open()
		if err != nil {
			continue // the root itself is refused
		}
		var chain []*x509.Certificate
		for _, text := range append([]string{c.Peer}, c.Intermediates...) {
			block, _ := pem.Decode([]byte(text))
			if block == nil {
				continue
			}
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				chain = append(chain, cert)
			}
		}
		now, err := time.Parse(time.RFC3339, c.Time)
		if err != nil {
			now = time.Now()
		}
		if len(chain) == 0 {
			continue
		}
		if tried++; v.Chain(chain, now) == nil {
			t.Errorf("%s is accepted", c.ID)
		}
	}
	if tried < 40 {
		t.Errorf("%d chains were tried", tried)
	}
}

func TestAHostsFilesAreItsOwn(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	key, other := parts.ECKey(t, elliptic.P256()), parts.ECKey(t, elliptic.P256())
	certFile, keyFile := parts.WriteHost(t, key, root.Sign(key.Public(), nil, nil))
	_, otherKey := parts.WriteHost(t, other, root.Cert)
	write := func(mode os.FileMode, blocks ...*pem.Block) string {
		t.Helper()
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		path := filepath.Join(t.TempDir(), "file.pem")
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ec, params := &pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}, &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{5, 0}}
	for name, c := range map[string]struct {
		host x509pop.Host
		want string // of the error; "" for none
	}{
		"PKCS#8":                   {x509pop.Host{Certificate: certFile, Key: keyFile}, ""},
		"OpenSSL's":                {x509pop.Host{Certificate: certFile, Key: write(0o600, params, ec)}, ""},
		"nothing":                  {x509pop.Host{}, "certificate: "},
		"no key":                   {x509pop.Host{Certificate: certFile}, "key: "},
		"another key":              {x509pop.Host{Certificate: certFile, Key: otherKey}, "key: "},
		"a key that others read":   {x509pop.Host{Certificate: certFile, Key: write(0o640, ec)}, "key: "},
		"an encrypted key":         {x509pop.Host{Certificate: certFile, Key: write(0o600, &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sec1})}, "key: "},
		"OpenSSL's, encrypted":     {x509pop.Host{Certificate: certFile, Key: write(0o600, &pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: sec1})}, "key: "},
		"a key that is none":       {x509pop.Host{Certificate: certFile, Key: write(0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})}, "key: "},
		"a key for a certificate":  {x509pop.Host{Certificate: keyFile, Key: keyFile}, "certificate: "},
		"an authority":             {x509pop.Host{Certificate: parts.WriteCerts(t, root.Cert), Key: keyFile}, "certificate: "},
		"a certificate for a key":  {x509pop.Host{Certificate: certFile, Key: certFile}, "key: "},
		"too long":                 {x509pop.Host{Certificate: write(0o600, &pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, 300<<10)}), Key: keyFile}, "certificate: "},
		"one that has ended":       {x509pop.Host{Certificate: parts.WriteCerts(t, root.Sign(key.Public(), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), Key: keyFile}, "certificate: "},
		"one that is to come":      {x509pop.Host{Certificate: parts.WriteCerts(t, root.Sign(key.Public(), nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })), Key: keyFile}, "certificate: "},
		"a certificate for others": {x509pop.Host{Certificate: parts.WriteCerts(t, root.Sign(key.Public(), nil, func(c *x509.Certificate) { c.ExtKeyUsage = nil })), Key: keyFile}, "certificate: "},
	} {
		err := c.host.Current(time.Now())
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(name, "encrypted") && (err == nil || !strings.Contains(err.Error(), "the private key is encrypted")) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: what was read is in %v", name, err)
		}
	}
}

func TestRootsAreAuthoritiesInAFileThatNobodyElseCanChange(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	key := parts.ECKey(t, elliptic.P256())
	open := func(path string) error { _, err := x509pop.Config{Roots: path}.Open(); return err }
	if v, err := (x509pop.Config{}).Open(); v != nil || err != nil {
		t.Errorf("without roots: %v, %v", v, err)
	}
	wide := parts.WriteCerts(t, root.Cert)
	if err := open(wide); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(wide, 0o666); err != nil {
		t.Fatal(err)
	}
	five := []*x509.Certificate{root.Cert}
	for range 4 {
		five = append(five, parts.NewHostCA(t, "root").Cert)
	}
	self := func(change func(*x509.Certificate)) *x509.Certificate {
		return root.Sign(key.Public(), nil, change)
	}
	for want, c := range map[string]*x509.Certificate{
		"do not say CA:TRUE":        self(nil),
		"does not name keyCertSign": self(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA, c.KeyUsage = true, true, 0 }), // as `openssl req -x509` makes it
	} {
		if err := open(parts.WriteCerts(t, c)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for name, path := range map[string]string{
		"a file that others write": wide,
		"a file that is not there": filepath.Join(t.TempDir(), "roots"),
		"a host's certificate":     parts.WriteCerts(t, root.Cert, root.Sign(key.Public(), nil, nil)),
		"no certificate":           parts.WriteCerts(t),
		"five of one name":         parts.WriteCerts(t, five...),
	} {
		if err := open(path); err == nil || !strings.HasPrefix(err.Error(), "roots: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An authority that is skipped lets no host in, and nobody hears of it.
func TestAFileWithADamagedBlockIsRefusedAsAWhole(t *testing.T) {
	block := func() string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: parts.NewHostCA(t, "root").Cert.Raw}))
	}
	one, two, three := block(), block(), block()
	open := func(text string) error {
		path := filepath.Join(t.TempDir(), "roots.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := x509pop.Config{Roots: path}.Open()
		return err
	}
	for _, good := range []string{one, one + two + three, "\n " + one + "\r\n\n" + two + " \n", strings.ReplaceAll(one+two, "\n", "\r\n")} {
		if err := open(good); err != nil {
			t.Errorf("%v:\n%s", err, good)
		}
	}
	spoilt := map[string]string{
		"its first line":      strings.Replace(two, "-----BEGIN", "----BEGIN", 1),
		"its last line":       strings.Replace(two, "-----END", "----END", 1),
		"its last line's end": strings.TrimSuffix(two, "--\n") + "\n",
		"a character":         strings.Replace(two, "\nMII", "\nM*I", 1),
		"its end cut off":     two[:len(two)/2] + "\n",
		"its beginning alone": "-----BEGIN CERTIFICATE-----\n",
		"text":                "# the old one\n",
	}
	for what, bad := range spoilt {
		for where, text := range map[string]string{"before": bad + one + three, "between": one + bad + three, "after": one + three + bad} {
			if err := open(text); err == nil || !strings.Contains(err.Error(), "roots.pem: after ") {
				t.Errorf("%s, %s: %v", what, where, err)
			}
		}
	}
}

// `openssl x509 -text` and `openssl ca` write what a certificate says above it.
func TestTextAboveAHostsCertificateIsPassedOverAndNoOther(t *testing.T) {
	root := parts.NewHostCA(t, "root")
	key, below := parts.ECKey(t, elliptic.P256()), root.Authority("below", nil)
	certFile, keyFile := parts.WriteHost(t, key, below.Sign(key.Public(), nil, nil))
	leaf, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: below.Cert.Raw}))
	const text = "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Signature Algorithm: ecdsa-with-SHA256\n"
	for content, good := range map[string]bool{
		text + string(leaf):                                  true,
		text + string(leaf) + block:                          true,
		string(leaf) + text + block:                          false,
		string(leaf) + block + text:                          false,
		text + strings.TrimPrefix(block, "-") + string(leaf): false, // a damaged block is no text
		strings.TrimSuffix(text, "\n") + string(leaf):        false,
		text: false,
	} {
		path := filepath.Join(t.TempDir(), "host.pem")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (x509pop.Host{Certificate: path, Key: keyFile}).Try(); (err == nil) != good {
			t.Errorf("%v:\n%s", err, content)
		}
	}
}

func TestASelectorHasTheOneFormThatHostsHave(t *testing.T) {
	for form, values := range map[string]struct{ good, bad []string }{
		"subject:cn":     {[]string{"web-01", "a:b c"}, []string{"", " a", strings.Repeat("a", 256)}},
		"serialnumber":   {[]string{"1", "a1b2"}, []string{"", "01", "A1", "0x1", "-1"}},
		"ca:fingerprint": {[]string{strings.Repeat("0a", 32)}, []string{"", strings.Repeat("0a", 20), strings.Repeat("0A", 32), strings.Repeat("0a:", 31) + "0a"}},
		"san:dns":        {[]string{"a.example", "*.a.example"}, []string{"", "A.example", "a example", "ä.example"}},
		"san:uri":        {[]string{"https://a.example/b?c#d", "urn:a:b"}, []string{"", "a.example", "HTTPS://a.example", "https://a.example/ b"}},
	} {
		for _, s := range values.good {
			if err := x509pop.Selectors[form](s); err != nil {
				t.Errorf("%s:%s: %v", form, s, err)
			}
		}
		for _, s := range values.bad {
			if x509pop.Selectors[form](s) == nil {
				t.Errorf("%s:%s is taken", form, s)
			}
		}
	}
}

func FuzzEvidence(f *testing.F) {
	root := parts.NewHostCA(f, "root")
	below := root.Authority("below", nil)
	key := parts.ECKey(f, elliptic.P256())
	leaf := below.Sign(key.Public(), nil, nil)
	v := verifier(f, root.Cert)
	good := prove(f, key, leaf, below.Cert)
	f.Add(good.Chain[0], good.Chain[1], good.Signature)
	f.Add(root.Cert.Raw, below.Cert.Raw, []byte{})
	f.Add([]byte{0x30, 0x80}, []byte(nil), []byte{0x30, 0x06})
	now := time.Now()
	f.Fuzz(func(t *testing.T, first, second, signature []byte) {
		sels, known, err := v.Verify(x509pop.Evidence{Chain: [][]byte{first, second}, Signature: signature}, challenge, now)
		if (err == nil) != (sels != nil) || (err == nil) != (known != nil) {
			t.Fatalf("%v, %x, %v", sels, known, err)
		}
		if err == nil && !bytes.Equal(first, leaf.Raw) {
			t.Error("another certificate was accepted")
		}
	})
}
