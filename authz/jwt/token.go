package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	maxToken  = 8 << 10
	clockSkew = 60 * time.Second
	// maxNumericDate is the end of the year 9999: beyond it a time is a mistake.
	maxNumericDate = 253402300799
)

// Reasons a token is refused for. They are constants: a record and a message
// have them, so nothing of a token's text may be in one.
var (
	errForm       = errors.New("malformed: not three parts of base64url without padding")
	errSize       = errors.New("too large")
	errHeader     = errors.New("its header is no JSON object, or has a name twice")
	errCritical   = errors.New("its header has crit, b64, zip or cty, which change how it is read")
	errType       = errors.New("its typ is not JWT or at+jwt")
	errKeyID      = errors.New("its kid is not a text of 1 to 256 bytes")
	errAlgorithm  = errors.New("its algorithm is not RS256, ES256, ES384 or EdDSA")
	ErrPayload    = errors.New("its claims are no JSON object, or have a name twice")
	errNoIssuer   = errors.New("it has no issuer (iss)")
	errIssuer     = errors.New("no JWTIssuer has its issuer")
	errKeyAlg     = errors.New("its issuer's key of its kid is for another algorithm")
	errNoKeyID    = errors.New("it has no kid, and its issuer not exactly one key for its algorithm")
	errSignature  = errors.New("signature is wrong")
	errSubject    = errors.New("its sub is not a text")
	errNoExpiry   = errors.New("it has no expiry (exp)")
	errTime       = errors.New("its exp, nbf or iat is not a time")
	errOrder      = errors.New("it was issued (iat) after it expires (exp)")
	errNoAudience = errors.New("it has no audience (aud)")
	errNoClaim    = errors.New("it has no audience: neither aud nor the issuer's audienceClaim")
	errAudiences  = errors.New("its audience is neither a text nor a list of texts")
	errAudience   = errors.New("its audience is another")
	errExpired    = errors.New("expired")
	errNotYet     = errors.New("not valid yet")
)

// Reasons that more of its issuer's keys would do away with: the token may be good.
var (
	// ErrNoKeys is returned for a token of an issuer of whose keys there is none.
	ErrNoKeys = errors.New("none of its issuer's keys is here")
	// ErrNoKey is returned for one whose kid is that of no key that is here.
	ErrNoKey = errors.New("its issuer has no key of its kid")
)

// Token is verified except for its times, which are CheckTime's.
type Token struct {
	Issuer, Subject, KeyID string
	Audience               []string
	Issued, Expiry         time.Time // Issued is zero where it does not say
	// Claims are all of it, decoded: numbers as they were written.
	Claims map[string]any
	// Size is that of the payload, in bytes.
	Size int

	notBefore time.Time
}

// Digest distinguishes tokens by what they are decoded to: their text is
// malleable in base64url's unused bits, so it is never a key (AUTHZ, JWT).
type Digest [sha256.Size]byte

// Compact are the decoded parts of a compact JWS. Nothing of it is proven.
type Compact struct {
	text                       string
	header, payload, signature []byte
	form                       *form
}

// form is how tokens of a kind are written.
type form struct {
	name     byte
	encoding *base64.Encoding
	longest  int
	refused  error
}

// Strict refuses non-zero unused bits.
var bearerForm = &form{'b', base64.RawURLEncoding.Strict(), maxToken, errForm}

// Parse decodes a compact serialization (RFC 7515 7.1), with everything that
// is cheap to refuse refused before anything is allocated for it.
func Parse(text string) (Compact, error) { return bearerForm.parse(text) }

func (f *form) parse(text string) (Compact, error) {
	if len(text) > f.longest {
		return Compact{}, errSize
	}
	if strings.Count(text, ".") != 2 {
		return Compact{}, f.refused
	}
	parts := strings.Split(text, ".")
	s := Compact{text: text, form: f}
	for i, into := range []*[]byte{&s.header, &s.payload, &s.signature} {
		if strings.ContainsAny(parts[i], "\r\n") { // which the decoder skips
			return Compact{}, f.refused
		}
		b, err := f.encoding.DecodeString(parts[i])
		if err != nil || len(b) == 0 {
			return Compact{}, f.refused
		}
		*into = b
	}
	return s, nil
}

// Digest is what the token is known by. One text is not the other form's, whatever it is
// decoded to: they are verified by other keys.
func (c Compact) Digest() Digest {
	h := sha256.New()
	h.Write([]byte{c.form.name})
	for _, part := range [][]byte{c.header, c.payload, c.signature} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // at most maxToken
		h.Write(part)
	}
	return Digest(h.Sum(nil))
}

// tokenHeader reads the protected header: alg, kid and typ. Names that are not
// understood are ignored (RFC 7515 4), and never used: which key signed is the
// issuer's to say, not the token's (jku, x5u, jwk, x5c, x5t). What would change
// how the token is read is refused.
func tokenHeader(raw []byte) (alg, kid string, err error) {
	members, err := headerMembers(raw)
	if err != nil {
		return "", "", err
	}
	if v, ok := members["kid"]; ok {
		if kid, ok = v.(string); !ok || kid == "" || len(kid) > MaxKeyID {
			return "", "", errKeyID
		}
	}
	alg, _ = members["alg"].(string)
	if !slices.Contains([]jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.EdDSA}, jose.SignatureAlgorithm(alg)) {
		return "", "", errAlgorithm
	}
	return alg, kid, nil
}

// headerMembers reads a header that does not change how the token is read.
func headerMembers(raw []byte) (map[string]any, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return nil, errHeader
	}
	for _, name := range []string{"crit", "b64", "zip", "cty"} {
		if _, ok := members[name]; ok {
			return nil, errCritical
		}
	}
	if typ, ok := members["typ"]; ok && !acceptedType(typ) {
		return nil, errType
	}
	return members, nil
}

// acceptedType: RFC 7519 5.1 and RFC 9068 2.1; the names are case-insensitive
// media types. A token that says it is something else is something else.
func acceptedType(typ any) bool {
	name, _ := typ.(string)
	t := strings.TrimPrefix(strings.ToLower(name), "application/")
	return t == "jwt" || t == "at+jwt"
}

// issuer is one trusted issuer with its usable keys.
type issuer struct {
	audiences     []string
	audienceClaim string
	keys          []key
}

// key finds the one key that a token may be signed by. Without kid there must
// be no choice: trying all would let a sender choose the work.
func (i *issuer) key(alg, kid string) (key, error) {
	var found []key
	named := false
	for _, k := range i.keys {
		if kid != "" && k.id != kid {
			continue
		}
		named = true
		if string(k.algorithm) == alg {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(i.keys) == 0:
		return key{}, ErrNoKeys
	case kid == "":
		return key{}, errNoKeyID
	case named:
		return key{}, errKeyAlg
	}
	return key{}, ErrNoKey
}

// Verify does everything except the check of the times. With a good signature the
// token comes along with the error, for the record.
func (i Issuers) Verify(c Compact) (*Token, error) {
	alg, kid, err := tokenHeader(c.header)
	if err != nil {
		return nil, err
	}
	claims, err := decodeObject(c.payload)
	if err != nil {
		return nil, ErrPayload
	}
	// The issuer's name is not proven yet. It only chooses whose keys must have
	// signed: an issuer's key never speaks for another issuer.
	name, ok := claims["iss"].(string)
	if !ok {
		return nil, errNoIssuer
	}
	iss := i.by[name]
	if iss == nil {
		return nil, errIssuer
	}
	by, err := iss.key(alg, kid)
	if err != nil {
		return nil, err
	}
	if err := checkSignature(c, by); err != nil {
		return nil, err
	}
	t := &Token{Issuer: name, KeyID: by.id, Claims: claims, Size: len(c.payload)}
	return t, t.readClaims(iss)
}

// checkSignature verifies over the parts as they came, by the key's algorithm
// and by nothing that the header says (RFC 7515 5.2).
func checkSignature(c Compact, by key) error {
	signed := c.text[:strings.LastIndexByte(c.text, '.')]
	sum := sha256.Sum256([]byte(signed))
	good := false
	switch public := by.public.(type) {
	case *rsa.PublicKey: // RS256: RFC 7518 3.3
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], c.signature) == nil
	case *ecdsa.PublicKey:
		good = verifyECDSA(public, by.algorithm, signed, c.signature)
	case ed25519.PublicKey: // EdDSA: RFC 8037 3.1
		good = ed25519.Verify(public, []byte(signed), c.signature)
	}
	if !good {
		return errSignature
	}
	return nil
}

// verifyECDSA is RFC 7518 3.4: r and s have the bytes of the curve's order each.
func verifyECDSA(public *ecdsa.PublicKey, algorithm jose.SignatureAlgorithm, signed string, signature []byte) bool {
	hash, half := crypto.SHA256, 32
	if algorithm == jose.ES384 {
		hash, half = crypto.SHA384, 48
	}
	if len(signature) != 2*half {
		return false
	}
	h := hash.New()
	_, _ = h.Write([]byte(signed)) // a hash takes everything
	return ecdsa.Verify(public, h.Sum(nil), new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
}

// readClaims holds the registered claims of RFC 7519 4.1 to their types. On an
// error what was read stays, for the record: the signature was good.
func (t *Token) readClaims(iss *issuer) (err error) {
	if err := t.readTimes(); err != nil {
		return err
	}
	if t.Audience, err = iss.audience(t.Claims); err != nil {
		return err
	}
	for _, a := range t.Audience {
		if slices.Contains(iss.audiences, a) {
			return nil
		}
	}
	return errAudience
}

// readTimes reads whom a token is about, and when it is good.
func (t *Token) readTimes() error {
	claims := t.Claims
	if sub, ok := claims["sub"]; ok {
		if t.Subject, ok = sub.(string); !ok {
			return errSubject
		}
	}
	exp, ok, err := numericDate(claims, "exp")
	if err != nil {
		return err
	}
	if !ok {
		return errNoExpiry
	}
	t.Expiry = exp
	if t.notBefore, _, err = numericDate(claims, "nbf"); err != nil {
		return err
	}
	iat, _, err := numericDate(claims, "iat")
	if err != nil {
		return err
	}
	t.Issued = iat
	if iat.After(exp) {
		return errOrder
	}
	if iat.After(t.notBefore) {
		t.notBefore = iat // used before it was issued: one of two clocks is wrong
	}
	return nil
}

// audience is a text or a list of them, and must be there: a token for nobody
// in particular is a token for somebody else. Of an issuer that has a claim for
// it, a token without aud is judged by that; one with aud never is (RFC 7519 4.1.3).
func (i *issuer) audience(claims map[string]any) ([]string, error) {
	v, ok := claims["aud"]
	if !ok && i.audienceClaim != "" {
		if v, ok = claims[i.audienceClaim]; !ok {
			return nil, errNoClaim
		}
	}
	if !ok {
		return nil, errNoAudience
	}
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errAudiences
			}
			out = append(out, s)
		}
		if len(out) == 0 {
			return nil, errNoAudience
		}
		return out, nil
	}
	return nil, errAudiences
}

// numericDate reads seconds since 1970; a fraction is allowed (RFC 7519 2).
func numericDate(claims map[string]any, name string) (time.Time, bool, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false, errTime
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxNumericDate {
		return time.Time{}, false, errTime
	}
	whole, frac := math.Modf(f)
	return time.Unix(int64(whole), int64(frac*1e9)), true, nil
}

// CheckTime is what remains to be looked at on each use.
func (t *Token) CheckTime(now time.Time) error {
	switch {
	case !now.Before(t.Expiry.Add(clockSkew)):
		return errExpired
	case now.Add(clockSkew).Before(t.notBefore):
		return errNotYet
	}
	return nil
}
