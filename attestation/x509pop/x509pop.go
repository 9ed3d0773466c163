// Package x509pop attests a host by a certificate that its operator's authority issued,
// and by a proof that the host has the certificate's key. It owns both ends: Host makes
// Evidence, Verifier checks it and says what it shows of the host. It must not know
// what a challenge is made of, nor which group a host is in.
//
// Main types in reading order: Host, Evidence, Config, Verifier. Safe for concurrent use.
package x509pop

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
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/internal/private"
)

// Name is the method's, and the type of its selectors.
const Name = "x509pop"

// What a check may cost: the signatures that are verified are counted before (Units),
// and each of them is of a key whose size is bounded.
const (
	maxChain       = 4       // certificates, the root apart
	maxCertificate = 8 << 10 // bytes of one
	maxSignature   = 1 << 10
	maxNames       = 32 // of one certificate, and name constraints of one
	maxRoots       = 16
	maxTwins       = 4 // roots of one name, each of which may have signed
	maxFile        = 256 << 10
	leastRSA       = 2048
	mostRSA        = 4096
)

// Host is the host's end, as configured.
type Host struct {
	// Certificate is a file with the host's certificate in PEM, and below it those that
	// lead to a root of the server's. Text may stand above the first, and nowhere else.
	Certificate string `yaml:"certificate"`
	// Key is the file of its private key. Nobody else than the agent's user may read it.
	Key string `yaml:"key"`
}

// Evidence is a certificate with those that lead to the root, in DER, and the signature
// of its key over a challenge.
type Evidence struct {
	Chain     [][]byte
	Signature []byte
}

// Try reads the files, and reports what is wrong with them, beginning with the key that
// names the file.
func (h Host) Try() error {
	_, _, err := h.read()
	return err
}

// Current is Try, and reports what is not good at this moment. Whether it lets the host
// join is for a server to say, by its own clock.
func (h Host) Current(now time.Time) error {
	chain, _, err := h.read()
	if err != nil {
		return err
	}
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			return fmt.Errorf("certificate: %s: %w", h.Certificate, err)
		case now.After(c.NotAfter):
			return fmt.Errorf("certificate: %s: certificate %d in it expired at %s: no server lets a host join by it; have it issued again", h.Certificate, i+1, plain.UTC(c.NotAfter))
		case now.Before(c.NotBefore):
			return fmt.Errorf("certificate: %s: certificate %d in it is good from %s only: look at this host's clock", h.Certificate, i+1, plain.UTC(c.NotBefore))
		}
	}
	return nil
}

// Prove makes Evidence about a challenge. The key stays on the host.
func (h Host) Prove(challenge []byte) (Evidence, error) {
	chain, key, err := h.read()
	if err != nil {
		return Evidence{}, err
	}
	message, options := messageFor(key.Public(), challenge)
	signature, err := key.Sign(rand.Reader, message, options)
	if err != nil {
		return Evidence{}, fmt.Errorf("key: %w", err)
	}
	return Evidence{Chain: chain, Signature: signature}, nil
}

func (h Host) read() ([][]byte, crypto.Signer, error) {
	text, err := readFile(h.Certificate)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	certs, err := parseCertificates(fromFirstBlock(text))
	if err == nil && len(certs) > maxChain {
		err = fmt.Errorf("%d certificates: at most %d, without the root", len(certs), maxChain)
	}
	if err == nil {
		err = checkLeaf(certs[0])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %s: %w", h.Certificate, err)
	}
	key, err := readKey(h.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certs[0].PublicKey) {
		return nil, nil, fmt.Errorf("key: %s is not the key of the first certificate in %s", h.Key, h.Certificate)
	}
	var chain [][]byte
	for _, c := range certs {
		chain = append(chain, c.Raw)
	}
	return chain, key, nil
}

// readKey reads PKCS#8, SEC 1 or PKCS#1. What was read is in no error.
func readKey(path string) (crypto.Signer, error) {
	if err := private.Secret(path, private.Self()); err != nil {
		return nil, err
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		if block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY" {
			return nil, fmt.Errorf("%s: the private key is encrypted: want one that is not, which the agent's user alone can read (`openssl pkey -in key -out plain` makes it)", path)
		}
		switch block.Type {
		case "EC PARAMETERS": // OpenSSL writes them before the key
			continue
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("%s: a PEM block %.40q: want a private key", path, block.Type)
		}
		if signer, ok := key.(crypto.Signer); ok && err == nil {
			return signer, checkKey(signer.Public())
		}
		return nil, fmt.Errorf("%s: it has no private key that can be read", path)
	}
	return nil, fmt.Errorf("%s: no private key in PEM", path)
}

// Config is the server's end, as configured.
type Config struct {
	// Roots is a file with the authorities, in PEM, whose certificates let hosts join.
	// Empty turns the method off. It is read at the start.
	Roots string `yaml:"roots" json:"roots"`
}

// Verifier checks evidence.
type Verifier struct {
	roots []*x509.Certificate
	pool  *x509.CertPool
	twins int // roots of the most frequent name
}

// Open reads the roots; nil where the method is off. An error begins with the key.
func (c Config) Open() (*Verifier, error) {
	if c.Roots == "" {
		return nil, nil
	}
	v, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	return v, nil
}

func (c Config) open() (*Verifier, error) {
	// Whoever can change it says which hosts there are.
	if err := private.Guarded(c.Roots, private.Self()); err != nil {
		return nil, err
	}
	text, err := readFile(c.Roots)
	if err != nil {
		return nil, err
	}
	roots, err := parseCertificates(text)
	if err == nil && len(roots) > maxRoots {
		err = fmt.Errorf("%d certificates: at most %d", len(roots), maxRoots)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Roots, err)
	}
	v := &Verifier{roots: roots, pool: x509.NewCertPool()}
	named := map[string]int{}
	for i, r := range roots {
		if err := checkAuthority(r); err != nil {
			return nil, fmt.Errorf("%s: certificate %d (%.100q): %w", c.Roots, i+1, r.Subject.String(), err)
		}
		v.pool.AddCert(r)
		named[string(r.RawSubject)]++
		v.twins = max(v.twins, named[string(r.RawSubject)])
	}
	if v.twins > maxTwins {
		return nil, fmt.Errorf("%s: %d certificates have one name: at most %d", c.Roots, v.twins, maxTwins)
	}
	return v, nil
}

// Units are the signatures that Verify will verify at most, by the number of
// certificates alone. Evidence that is too large is refused.
func (v *Verifier) Units(e Evidence) (int, error) {
	if n := len(e.Chain); n == 0 || n > maxChain {
		return 0, fmt.Errorf("%d certificates: want 1 to %d, without the root", n, maxChain)
	}
	for i, der := range e.Chain {
		if len(der) > maxCertificate {
			return 0, fmt.Errorf("certificate %d has %d bytes: at most %d", i+1, len(der), maxCertificate)
		}
	}
	if len(e.Signature) > maxSignature {
		return 0, fmt.Errorf("signature of %d bytes: at most %d", len(e.Signature), maxSignature)
	}
	return len(e.Chain) + v.twins, nil // one for each signer that is sent, the roots of a name, and the proof
}

// Verify checks evidence about a challenge. It returns the host's selectors and the
// SHA-256 of its public key, by which it is known again.
func (v *Verifier) Verify(e Evidence, challenge []byte, now time.Time) (identity.Selectors, []byte, error) {
	if _, err := v.Units(e); err != nil {
		return nil, nil, err
	}
	var chain []*x509.Certificate
	for i, der := range e.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		chain = append(chain, c)
	}
	paths, err := v.verifyChain(chain, now)
	if err != nil {
		return nil, nil, err
	}
	if !verifySignature(chain[0].PublicKey, challenge, e.Signature) {
		return nil, nil, errors.New("the signature is not that of the certificate's key over this connection")
	}
	key := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
	return selectorsOf(paths), key[:], nil
}

// verifyChain returns the paths from the leaf to roots of ours.
func (v *Verifier) verifyChain(chain []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if n := len(chain); n > 1 && slices.ContainsFunc(v.roots, chain[n-1].Equal) {
		chain = chain[:n-1] // a root is known here, and is not what is sent
	}
	if err := checkLeaf(chain[0]); err != nil {
		return nil, err
	}
	if err := v.checkOrder(chain); err != nil {
		return nil, err
	}
	signers := x509.NewCertPool()
	for i, c := range chain[1:] {
		if err := checkAuthority(c); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+2, err)
		}
		signers.AddCert(c)
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: v.pool, Intermediates: signers, CurrentTime: now,
		KeyUsages:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		MaxConstraintComparisions: maxNames * maxNames,
	})
	if err != nil {
		return nil, err
	}
	return paths, nil
}

// checkOrder has each certificate name the next as its issuer, the last a root of ours,
// and no name twice. So there is one candidate for each signature, except for roots of one
// name, and nobody makes path validation search.
func (v *Verifier) checkOrder(chain []*x509.Certificate) error {
	for i, c := range chain {
		last := i == len(chain)-1
		switch {
		case !last && !bytes.Equal(c.RawIssuer, chain[i+1].RawSubject):
			return fmt.Errorf("certificate %d is not issued by the next: send the host's first, then each one's issuer", i+1)
		case last && !v.hasRoot(c.RawIssuer):
			return fmt.Errorf("it leads to %.100q, which is no root of this server's: if that is an intermediate authority, put its certificate below the host's in the file that the key certificate names", c.Issuer.String())
		case i > 0 && v.hasRoot(c.RawSubject):
			return fmt.Errorf("certificate %d has a root's name and is another certificate", i+1)
		}
		for _, before := range chain[:i] {
			if bytes.Equal(before.RawSubject, c.RawSubject) {
				return fmt.Errorf("certificate %d has the name of one before it", i+1)
			}
		}
	}
	return nil
}

func (v *Verifier) hasRoot(subject []byte) bool {
	return slices.ContainsFunc(v.roots, func(r *x509.Certificate) bool { return bytes.Equal(r.RawSubject, subject) })
}

// checkLeaf holds a host's certificate to its purpose. What a certificate does not
// restrict would be fit for everything: usages must be named.
func checkLeaf(c *x509.Certificate) error {
	if err := errors.Join(checkKey(c.PublicKey), checkNames(c)); err != nil {
		return err
	}
	switch {
	case c.IsCA:
		return errors.New("it is an authority's certificate, and must be the host's own")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage does not name digitalSignature")
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return errors.New("its extended key usage does not name clientAuth")
	}
	for _, u := range c.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			return errors.New("it is an SVID: that is the identity of a workload, and says nothing of a host")
		}
	}
	if n := len(commonNames(c)); n > 1 {
		return fmt.Errorf("its subject has %d common names: at most one", n)
	}
	return nil
}

func checkAuthority(c *x509.Certificate) error {
	if err := errors.Join(checkKey(c.PublicKey), checkNames(c)); err != nil {
		return err
	}
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not the certificate of an authority: its basic constraints do not say CA:TRUE")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it is not the certificate of an authority: its key usage does not name keyCertSign")
	}
	return nil
}

// checkNames bounds what path validation compares with each other.
func checkNames(c *x509.Certificate) error {
	names := len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs)
	constraints := len(c.PermittedDNSDomains) + len(c.ExcludedDNSDomains) + len(c.PermittedIPRanges) + len(c.ExcludedIPRanges) +
		len(c.PermittedEmailAddresses) + len(c.ExcludedEmailAddresses) + len(c.PermittedURIDomains) + len(c.ExcludedURIDomains)
	if names > maxNames || constraints > maxNames {
		return fmt.Errorf("%d names and %d name constraints: at most %d of each", names, constraints, maxNames)
	}
	return nil
}

// checkKey accepts keys that are strong enough and cheap enough to verify by.
func checkKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= leastRSA && bits <= mostRSA && k.E <= 1<<16+1 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("a key of another kind or size than ECDSA P-256 or P-384, Ed25519, or RSA of %d to %d bits", leastRSA, mostRSA)
}

// possession parts what is signed here from everything else that such a key signs, in
// the form and for the reason of RFC 8446 4.4.3.
var possession = strings.Repeat(" ", 64) + "Signet x509pop, proof of possession, version 1\x00"

// messageFor is what a key signs about a challenge: hashed, where the key wants a hash.
func messageFor(public crypto.PublicKey, challenge []byte) ([]byte, crypto.SignerOpts) {
	message := append([]byte(possession), challenge...)
	hash := crypto.SHA256
	switch k := public.(type) {
	case ed25519.PublicKey:
		return message, crypto.Hash(0)
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			hash = crypto.SHA384
		}
	}
	h := hash.New()
	_, _ = h.Write(message) // a hash takes everything
	if _, ok := public.(*rsa.PublicKey); ok {
		return h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	return h.Sum(nil), hash
}

func verifySignature(public crypto.PublicKey, challenge, signature []byte) bool {
	message, options := messageFor(public, challenge)
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, message, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *rsa.PublicKey:
		pss, ok := options.(*rsa.PSSOptions)
		return ok && rsa.VerifyPSS(k, pss.Hash, message, signature, pss) == nil
	}
	return false
}

// Selectors are the forms that a host has, by the names that SPIRE gives them, each
// with a check of the value. The fingerprint is SHA-256 where SPIRE's is SHA-1, and
// names are not taken out of x509pop URIs.
var Selectors = map[string]func(string) error{
	"subject:cn":     checkText,
	"serialnumber":   checkSerial,
	"ca:fingerprint": checkFingerprint,
	"san:dns":        checkDNS,
	"san:uri":        checkURI,
}

// selectorsOf are those of the host of verified paths, all of one leaf. What no group
// can name is left out. So is, below an authority that is confined to some names, each
// that it is not confined to: names of a form that its constraints permit none of, and
// the common name and the serial number, which no constraint is about.
func selectorsOf(paths [][]*x509.Certificate) identity.Selectors {
	var sels identity.Selectors
	add := func(form, value string) {
		s, err := identity.ParseSelector(Name + ":" + form + ":" + value)
		if err == nil && Selectors[form](value) == nil && !slices.Contains(sels, s) {
			sels = append(sels, s)
		}
	}
	leaf := paths[0][0]
	if believed(paths, func(*x509.Certificate) []string { return nil }) { // of no form
		if names := commonNames(leaf); len(names) == 1 {
			add("subject:cn", names[0])
		}
		add("serialnumber", leaf.SerialNumber.Text(16))
	}
	if believed(paths, func(c *x509.Certificate) []string { return c.PermittedDNSDomains }) {
		for _, n := range leaf.DNSNames {
			add("san:dns", strings.ToLower(n))
		}
	}
	if believed(paths, func(c *x509.Certificate) []string { return c.PermittedURIDomains }) {
		for _, u := range leaf.URIs {
			add("san:uri", u.String())
		}
	}
	for _, path := range paths {
		for _, c := range path[1:] {
			sum := sha256.Sum256(c.Raw)
			add("ca:fingerprint", hex.EncodeToString(sum[:]))
		}
	}
	return sels
}

// believed reports whether names of a form mean something on every path: each authority
// that is confined at all is confined to some of that form, which the path was held to.
func believed(paths [][]*x509.Certificate, permitted func(*x509.Certificate) []string) bool {
	for _, path := range paths {
		for _, c := range path[1:] {
			if constrained(c) && len(permitted(c)) == 0 {
				return false
			}
		}
	}
	return true
}

var (
	oidCommonName      = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

func constrained(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidNameConstraints) {
			return true
		}
	}
	return false
}

func commonNames(c *x509.Certificate) []string {
	var names []string
	for _, n := range c.Subject.Names {
		if n.Type.Equal(oidCommonName) {
			text, _ := n.Value.(string) // what is no text is no name
			names = append(names, text)
		}
	}
	return names
}

func checkText(s string) error {
	if s == "" || len(s) > 255 || strings.TrimSpace(s) != s {
		return errors.New("want 1 to 255 bytes, without spaces around them")
	}
	return nil
}

func checkSerial(s string) error {
	if s == "" || len(s) > 42 || s[0] == '0' || strings.Trim(s, "0123456789abcdef") != "" {
		return errors.New("want hex digits in lower case, without zeros before them")
	}
	return nil
}

func checkFingerprint(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return errors.New("want the SHA-256 of an authority's certificate: 64 hex digits in lower case")
	}
	return nil
}

func checkDNS(s string) error {
	if s == "" || len(s) > 253 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-._*") != "" {
		return errors.New("want a DNS name in lower case")
	}
	return nil
}

func checkURI(s string) error {
	if u, err := url.Parse(s); err != nil || u.Scheme == "" || u.String() != s || len(s) > 2048 {
		return errors.New("want a URI with its scheme")
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s: longer than %d bytes", path, maxFile)
	}
	return text, err
}

// pemBegin begins a block.
var pemBegin = []byte("-----BEGIN ")

// fromFirstBlock passes over the text that `openssl x509 -text` and `openssl ca` write
// before a host's certificate. No certificate is hidden there: a block that is damaged has
// its dashes, and the first one that is read must be that of the host's key.
func fromFirstBlock(text []byte) []byte {
	if i := bytes.Index(text, pemBegin); i > 0 && text[i-1] == '\n' && !bytes.Contains(text[:i], []byte("-----")) {
		return text[i:]
	}
	return text
}

// parseCertificates reads PEM that has certificates and white space alone, and at least
// one. pem.Decode skips what is no whole block, and with it an authority whose block is
// damaged: so what it reads must begin with a block and have no other.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; {
		block, after := pem.Decode(rest)
		if read := rest[:len(rest)-len(after)]; block == nil || !bytes.HasPrefix(read, pemBegin) || bytes.Count(read, pemBegin) > 1 {
			return nil, fmt.Errorf("after %d certificates, at %.40q: a PEM block that is damaged, or other text: want PEM blocks alone", len(certs), rest)
		}
		rest = bytes.TrimSpace(after)
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %.40q: want certificates alone", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}
