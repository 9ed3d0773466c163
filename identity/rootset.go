package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	rootSetHeader  = "signet-root-set-v1"
	maxRootSetSize = 256 << 10
	maxRoots       = 16
)

// strict refuses non-zero trailing bits. Line breaks it skips, so they are
// looked for apart: one document has one text.
var strict = base64.RawURLEncoding.Strict()

// ErrPin is returned by ParseRootSet when the document was signed by another
// key than the pinned one.
var ErrPin = errors.New("root set is signed by another key than the pinned one")

// RootSet is one numbered document of the trust domain's roots. Whoever holds
// the pin of its key needs no other proof.
//
// The document is one line: "signet-root-set-v1", the payload and the
// signature, joined by dots, the last two in base64url. The payload is compact
// JSON with its fields in one order; the signature is ECDSA over the SHA-256
// of everything before the last dot, so a signature of another kind of
// document can never be passed off as one of this.
type RootSet struct {
	TrustDomain spiffeid.TrustDomain
	Number      uint64
	Roots       []*x509.Certificate
	// Key that signed the document.
	Key crypto.PublicKey
}

// rootSetPayload is the JSON as it is signed.
type rootSetPayload struct {
	TrustDomain string   `json:"trust_domain"`
	Number      uint64   `json:"number"`
	Roots       []string `json:"roots"`
	Key         string   `json:"key"`
}

// Sign returns the document, signed by key, which must be ECDSA P-256. Where
// rs.Key is set it must be key's.
func (rs RootSet) Sign(key crypto.Signer) ([]byte, error) {
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || checkSigningKey(pub) != nil {
		return nil, errors.New("sign root set: the key must be ECDSA P-256")
	}
	if rs.Key != nil && !pub.Equal(rs.Key) {
		return nil, errors.New("sign root set: Key is not the signing key's")
	}
	rs.Key = pub
	payload, err := rs.payload()
	if err != nil {
		return nil, fmt.Errorf("sign root set: %w", err)
	}
	signed := rootSetHeader + "." + strict.EncodeToString(payload)
	digest := sha256.Sum256([]byte(signed))
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign root set %d of %q: %w", rs.Number, rs.TrustDomain.Name(), err)
	}
	doc := []byte(signed + "." + strict.EncodeToString(sig))
	if _, err := ParseRootSet(doc, rs.Pin()); err != nil { // what we hand out can be read back
		return nil, fmt.Errorf("sign root set: %w", err)
	}
	return doc, nil
}

func (rs RootSet) payload() ([]byte, error) {
	if err := rs.check(); err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(rs.Key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	p := rootSetPayload{TrustDomain: rs.TrustDomain.Name(), Number: rs.Number, Key: strict.EncodeToString(spki)}
	for _, r := range rs.Roots {
		p.Roots = append(p.Roots, strict.EncodeToString(r.Raw))
	}
	return json.Marshal(p)
}

// ParseRootSet verifies a document and returns what it says. pin is the
// SHA-256 of the signing key's SubjectPublicKeyInfo; nil accepts the key that
// the document names, for a caller who has other proof of the document.
func ParseRootSet(doc []byte, pin []byte) (RootSet, error) {
	if len(doc) > maxRootSetSize {
		return RootSet{}, fmt.Errorf("root set of %d bytes: at most %d", len(doc), maxRootSetSize)
	}
	parts := strings.Split(string(doc), ".")
	if len(parts) != 3 || parts[0] != rootSetHeader || bytes.ContainsAny(doc, "\r\n") {
		return RootSet{}, fmt.Errorf("root set: not a %s document", rootSetHeader)
	}
	payload, err := strict.DecodeString(parts[1])
	if err != nil {
		return RootSet{}, fmt.Errorf("root set: payload: %w", err)
	}
	sig, err := strict.DecodeString(parts[2])
	if err != nil {
		return RootSet{}, fmt.Errorf("root set: signature: %w", err)
	}
	// The signature comes before the contents: what nobody vouches for is
	// decoded only as far as needed to find the key.
	key, err := verifyRootSet([]byte(parts[0]+"."+parts[1]), payload, sig, pin)
	if err != nil {
		return RootSet{}, err
	}
	return decodeRootSet(payload, key)
}

func verifyRootSet(signed, payload, sig, pin []byte) (*ecdsa.PublicKey, error) {
	var p struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, fmt.Errorf("root set: payload: %w", err)
	}
	spki, err := strict.DecodeString(p.Key)
	if err != nil {
		return nil, fmt.Errorf("root set: key: %w", err)
	}
	if sum := sha256.Sum256(spki); pin != nil && !bytes.Equal(sum[:], pin) {
		return nil, ErrPin
	}
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("root set: key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || checkSigningKey(key) != nil {
		return nil, errors.New("root set: the signing key is not ECDSA P-256")
	}
	digest := sha256.Sum256(signed)
	if !ecdsa.VerifyASN1(key, digest[:], sig) {
		return nil, errors.New("root set: the signature is not valid")
	}
	return key, nil
}

// decodeRootSet reads a payload whose signature holds. Writing what was read
// again must give the same bytes: no unknown, repeated or reordered field.
func decodeRootSet(payload []byte, key *ecdsa.PublicKey) (RootSet, error) {
	var p rootSetPayload
	if err := json.Unmarshal(payload, &p); err != nil {
		return RootSet{}, fmt.Errorf("root set: payload: %w", err)
	}
	td, err := ParseTrustDomain(p.TrustDomain)
	if err != nil {
		return RootSet{}, fmt.Errorf("root set: %w", err)
	}
	rs := RootSet{TrustDomain: td, Number: p.Number, Key: key}
	for i, r := range p.Roots {
		der, err := strict.DecodeString(r)
		if err != nil {
			return RootSet{}, fmt.Errorf("root set: roots[%d]: %w", i, err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return RootSet{}, fmt.Errorf("root set: roots[%d]: %w", i, err)
		}
		rs.Roots = append(rs.Roots, c)
	}
	again, err := rs.payload()
	if err != nil {
		return RootSet{}, fmt.Errorf("root set: %w", err)
	}
	if !bytes.Equal(again, payload) {
		return RootSet{}, errors.New("root set: the payload is not in canonical form")
	}
	return rs, nil
}

func (rs RootSet) check() error {
	if rs.TrustDomain.IsZero() {
		return errors.New("no trust domain")
	}
	if rs.Number == 0 {
		return errors.New("number 0: root sets are counted from 1")
	}
	if len(rs.Roots) == 0 || len(rs.Roots) > maxRoots {
		return fmt.Errorf("%d roots: want 1 to %d", len(rs.Roots), maxRoots)
	}
	for i, r := range rs.Roots {
		if err := checkRoot(r, rs.TrustDomain); err != nil {
			return fmt.Errorf("roots[%d]: %w", i, err)
		}
		if slices.ContainsFunc(rs.Roots[:i], r.Equal) {
			return fmt.Errorf("roots[%d]: given twice", i)
		}
	}
	return nil
}

func checkRoot(c *x509.Certificate, td spiffeid.TrustDomain) error {
	if err := checkSigner(c, td); err != nil {
		return err
	}
	if !bytes.Equal(c.RawIssuer, c.RawSubject) || c.CheckSignatureFrom(c) != nil {
		return errors.New("not self-signed")
	}
	return nil
}

func checkSigningKey(k *ecdsa.PublicKey) error {
	if k.Curve == nil || k.Curve.Params().BitSize != 256 {
		return errors.New("not P-256")
	}
	return nil
}

// Pin is the SHA-256 of the signing key's SubjectPublicKeyInfo, nil without a key.
func (rs RootSet) Pin() []byte {
	spki, err := x509.MarshalPKIXPublicKey(rs.Key)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(spki)
	return sum[:]
}

// Pool returns the roots for VerifyChain.
func (rs RootSet) Pool() *x509.CertPool { return PoolOf(rs.Roots...) }

// PoolOf returns a pool of these roots. It is never nil, so that no verifier
// falls back on the machine's own roots.
func PoolOf(roots ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}
