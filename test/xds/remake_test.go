package xdstest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet.example/test/parts"
)

// hostileSVID is a chain of the shared set, made long ago with keys that nobody has.
type hostileSVID struct {
	ID, Rule, Expect string
	TrustDomain      string    `json:"bundle_trust_domain"`
	Time             time.Time `json:"validation_time"`
	Chain            []string  `json:"chain_pem_leaf_first"`
	Bundle           []string  `json:"bundle_pem"`
}

// hostileSVIDs are those of the files of the set that are here and fit pattern.
func hostileSVIDs(t *testing.T, pattern string) []hostileSVID {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(parts.Shared(t, "testdata", "svid-hostile"), pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	var all []hostileSVID
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var cases []hostileSVID
		if err := json.Unmarshal(content, &cases); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all = append(all, cases...)
	}
	return all
}

// remaker makes certificates again, byte for byte but for keys, signatures and
// dates: what is wrong with one stays wrong. A certificate that its issuer did not
// sign is not signed by it now either.
type remaker struct {
	t    *testing.T
	now  time.Time
	keys map[string]crypto.Signer // by the old SubjectPublicKeyInfo
	made map[string][]byte        // by the old certificate
}

func newRemaker(t *testing.T) *remaker {
	t.Helper()
	return &remaker{t: t, now: time.Now(), keys: map[string]crypto.Signer{}, made: map[string][]byte{}}
}

// oldCert is a certificate taken apart; encoding/asn1 is less particular than
// crypto/x509, and some of these cannot be parsed by that.
type oldCert struct {
	raw       []byte
	fields    []asn1.RawValue // of the TBSCertificate
	first     int             // the serial number's place: 1 behind a version
	algorithm asn1.RawValue
	signature asn1.BitString
	tbs       []byte
}

func parseOld(t *testing.T, text string) oldCert {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no PEM")
	}
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if rest, err := asn1.Unmarshal(block.Bytes, &outer); err != nil || len(rest) > 0 {
		t.Fatalf("certificate: %v", err)
	}
	c := oldCert{raw: block.Bytes, tbs: outer.TBS.FullBytes, algorithm: outer.Algorithm, signature: outer.Signature}
	for rest := outer.TBS.Bytes; len(rest) > 0; {
		var f asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &f); err != nil {
			t.Fatalf("TBSCertificate: %v", err)
		}
		c.fields = append(c.fields, f)
	}
	if c.fields[0].Class == asn1.ClassContextSpecific {
		c.first = 1
	}
	return c
}

// The fields of a TBSCertificate behind the serial number.
const (
	fieldValidity = 3
	fieldKey      = 5
)

func (c oldCert) spki() []byte { return c.fields[c.first+fieldKey].FullBytes }

// key is the new key that stands for an old one: of the same kind.
func (r *remaker) key(spki []byte) crypto.Signer {
	r.t.Helper()
	if k := r.keys[string(spki)]; k != nil {
		return k
	}
	old, _ := x509.ParsePKIXPublicKey(spki) // what cannot be parsed gets a key of the usual kind
	var k crypto.Signer
	var err error
	switch old := old.(type) {
	case *rsa.PublicKey:
		k, err = rsa.GenerateKey(rand.Reader, old.N.BitLen())
	case ed25519.PublicKey:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case *ecdsa.PublicKey:
		k, err = ecdsa.GenerateKey(old.Curve, rand.Reader)
	default:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.keys[string(spki)] = k
	return k
}

// signers of certificates, by the OID of the algorithm.
var algorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256, "1.2.840.10045.4.3.3": x509.ECDSAWithSHA384, "1.2.840.10045.4.3.4": x509.ECDSAWithSHA512,
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA, "1.3.101.112": x509.PureEd25519,
}

func (c oldCert) algorithmOf(t *testing.T) x509.SignatureAlgorithm {
	t.Helper()
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(c.algorithm.Bytes, &oid); err != nil {
		t.Fatal(err)
	}
	a, ok := algorithms[oid.String()]
	if !ok {
		t.Fatalf("signature algorithm %s", oid)
	}
	return a
}

// signer is the key that signed a certificate: that of one of the others, or
// one that nobody knows, where none of them did.
func (r *remaker) signer(c oldCert, others []oldCert) crypto.Signer {
	r.t.Helper()
	algorithm := c.algorithmOf(r.t)
	for _, o := range others {
		pub, err := x509.ParsePKIXPublicKey(o.spki())
		if err != nil {
			continue
		}
		if (&x509.Certificate{PublicKey: pub}).CheckSignature(algorithm, c.tbs, c.signature.RightAlign()) == nil {
			return r.key(o.spki())
		}
	}
	var k crypto.Signer
	var err error
	switch algorithm {
	case x509.SHA256WithRSA:
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	case x509.PureEd25519:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	default:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// remake makes c again; others are all that may have signed it.
func (r *remaker) remake(c oldCert, others []oldCert, at time.Time) []byte {
	r.t.Helper()
	if der := r.made[string(c.raw)]; der != nil {
		return der
	}
	spki, err := x509.MarshalPKIXPublicKey(r.key(c.spki()).Public())
	if err != nil {
		r.t.Fatal(err)
	}
	fields := append([]asn1.RawValue(nil), c.fields...)
	fields[c.first+fieldKey] = asn1.RawValue{FullBytes: spki}
	fields[c.first+fieldValidity] = asn1.RawValue{FullBytes: r.validity(c.fields[c.first+fieldValidity], at)}
	tbs := r.marshal(fields)
	der := r.marshal(struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, c.algorithm, r.sign(c.algorithmOf(r.t), tbs, r.signer(c, others))})
	r.made[string(c.raw)] = der
	return der
}

func (r *remaker) marshal(v any) []byte {
	r.t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return der
}

func (r *remaker) sign(algorithm x509.SignatureAlgorithm, tbs []byte, key crypto.Signer) asn1.BitString {
	r.t.Helper()
	message, hash := tbs, crypto.Hash(0)
	switch algorithm {
	case x509.ECDSAWithSHA256, x509.SHA256WithRSA:
		d := sha256.Sum256(tbs)
		message, hash = d[:], crypto.SHA256
	case x509.ECDSAWithSHA384:
		d := sha512.Sum384(tbs)
		message, hash = d[:], crypto.SHA384
	case x509.ECDSAWithSHA512:
		d := sha512.Sum512(tbs)
		message, hash = d[:], crypto.SHA512
	}
	sig, err := key.Sign(rand.Reader, message, hash)
	if err != nil {
		r.t.Fatal(err)
	}
	return asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
}

// validity is shifted so that what was valid at `at` is valid now, with an hour to
// spare on either side: a test takes time.
func (r *remaker) validity(old asn1.RawValue, at time.Time) []byte {
	r.t.Helper()
	var v struct{ From, Until time.Time }
	if _, err := asn1.Unmarshal(old.FullBytes, &v); err != nil {
		r.t.Fatalf("validity: %v", err)
	}
	shift := func(old time.Time, spare time.Duration) time.Time {
		if old.Year() == 9999 {
			return old // it cannot be later
		}
		next := old.Add(r.now.Sub(at)).UTC().Truncate(time.Second)
		if old.After(at) {
			return next.Add(spare)
		}
		return next.Add(-spare)
	}
	v.From, v.Until = shift(v.From, time.Hour), shift(v.Until, time.Hour)
	return r.marshal(v)
}

// remade is a case made again: with its leaf's key, for a client.
type remade struct {
	chain, bundle [][]byte
	key           crypto.Signer
}

func (r *remaker) all(c hostileSVID) remade {
	r.t.Helper()
	var chain, bundle []oldCert
	for _, text := range c.Chain {
		chain = append(chain, parseOld(r.t, text))
	}
	for _, text := range c.Bundle {
		bundle = append(bundle, parseOld(r.t, text))
	}
	others := append(append([]oldCert(nil), chain...), bundle...)
	var m remade
	for _, o := range chain {
		m.chain = append(m.chain, r.remake(o, others, c.Time))
	}
	for _, o := range bundle {
		m.bundle = append(m.bundle, r.remake(o, others, c.Time))
	}
	m.key = r.key(chain[0].spki())
	return m
}
