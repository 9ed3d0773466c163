package authz

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"signet.example/policy"
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
	errTokenForm       = errors.New("malformed: not three parts of base64url without padding")
	errTokenSize       = errors.New("too large")
	errTokenScheme     = errors.New("malformed: not one header `authorization: Bearer <token>`")
	errTokenHeader     = errors.New("its header is no JSON object, or has a name twice")
	errTokenCritical   = errors.New("its header has crit, b64, zip or cty, which change how it is read")
	errTokenType       = errors.New("its typ is not JWT or at+jwt")
	errTokenKeyID      = errors.New("its kid is not a text of 1 to 256 bytes")
	errTokenAlgorithm  = errors.New("its algorithm is not RS256, ES256 or EdDSA")
	errTokenPayload    = errors.New("its claims are no JSON object, or have a name twice")
	errTokenNoIssuer   = errors.New("it has no issuer (iss)")
	errTokenIssuer     = errors.New("no JWTIssuer has its issuer")
	errTokenNoKeys     = errors.New("none of its issuer's keys is here")
	errTokenKey        = errors.New("its issuer has no key of its kid")
	errTokenKeyAlg     = errors.New("its issuer's key of its kid is for another algorithm")
	errTokenNoKeyID    = errors.New("it has no kid, and its issuer not exactly one key for its algorithm")
	errTokenSignature  = errors.New("signature is wrong")
	errTokenSubject    = errors.New("its sub is not a text")
	errTokenNoExpiry   = errors.New("it has no expiry (exp)")
	errTokenTime       = errors.New("its exp, nbf or iat is not a time")
	errTokenOrder      = errors.New("it was issued (iat) after it expires (exp)")
	errTokenNoAudience = errors.New("it has no audience (aud)")
	errTokenNoClaim    = errors.New("it has no audience: neither aud nor the issuer's audienceClaim")
	errTokenAudiences  = errors.New("its audience is neither a text nor a list of texts")
	errTokenAudience   = errors.New("its audience is another")
	errTokenExpired    = errors.New("expired")
	errTokenNotYet     = errors.New("not valid yet")
)

// token is verified except for its times, which are checked on each use.
type token struct {
	claims               *policy.Claims
	issuer, subject, kid string
	audience             []string
	expiry, notBefore    time.Time
	size                 int // of the payload
}

// digest distinguishes tokens by what they are decoded to: their text is
// malleable in base64url's unused bits, so it is never a key (AUTHZ, JWT).
type digest [sha256.Size]byte

// segments are the decoded parts of a compact JWS.
type segments struct {
	text                       string
	header, payload, signature []byte
}

// split decodes a compact serialization (RFC 7515 7.1), with everything that
// is cheap to refuse refused before anything is allocated for it.
func split(text string) (segments, error) {
	if len(text) > maxToken {
		return segments{}, errTokenSize
	}
	if strings.Count(text, ".") != 2 {
		return segments{}, errTokenForm
	}
	parts := strings.Split(text, ".")
	s := segments{text: text}
	for i, into := range []*[]byte{&s.header, &s.payload, &s.signature} {
		if strings.ContainsAny(parts[i], "\r\n") { // which the decoder skips
			return segments{}, errTokenForm
		}
		// Strict refuses non-zero unused bits.
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil || len(b) == 0 {
			return segments{}, errTokenForm
		}
		*into = b
	}
	return s, nil
}

func (s segments) digest() digest {
	h := sha256.New()
	for _, part := range [][]byte{s.header, s.payload, s.signature} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // at most maxToken
		h.Write(part)
	}
	return digest(h.Sum(nil))
}

// tokenHeader reads the protected header: alg, kid and typ. Names that are not
// understood are ignored (RFC 7515 4), and never used: which key signed is the
// issuer's to say, not the token's (jku, x5u, jwk, x5c, x5t). What would change
// how the token is read is refused.
func tokenHeader(raw []byte) (alg, kid string, err error) {
	members, err := decodeObject(raw)
	if err != nil {
		return "", "", errTokenHeader
	}
	for _, name := range []string{"crit", "b64", "zip", "cty"} {
		if _, ok := members[name]; ok {
			return "", "", errTokenCritical
		}
	}
	if typ, ok := members["typ"]; ok && !acceptedType(typ) {
		return "", "", errTokenType
	}
	if v, ok := members["kid"]; ok {
		if kid, ok = v.(string); !ok || kid == "" || len(kid) > maxKeyID {
			return "", "", errTokenKeyID
		}
	}
	alg, _ = members["alg"].(string)
	if !slices.Contains([]jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}, jose.SignatureAlgorithm(alg)) {
		return "", "", errTokenAlgorithm
	}
	return alg, kid, nil
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
	name          string
	audiences     []string
	audienceClaim string
	keys          []verificationKey
}

// key finds the one key that a token may be signed by. Without kid there must
// be no choice: trying all would let a sender choose the work.
func (i *issuer) key(alg, kid string) (verificationKey, error) {
	var found []verificationKey
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
		return verificationKey{}, errTokenNoKeys
	case kid == "":
		return verificationKey{}, errTokenNoKeyID
	case named:
		return verificationKey{}, errTokenKeyAlg
	}
	return verificationKey{}, errTokenKey
}

// verifySegments does everything except the check of the times.
func verifySegments(s segments, issuers map[string]*issuer) (*token, error) {
	alg, kid, err := tokenHeader(s.header)
	if err != nil {
		return nil, err
	}
	claims, err := decodeObject(s.payload)
	if err != nil {
		return nil, errTokenPayload
	}
	// The issuer's name is not proven yet. It only chooses whose keys must have
	// signed: an issuer's key never speaks for another issuer.
	name, ok := claims["iss"].(string)
	if !ok {
		return nil, errTokenNoIssuer
	}
	iss := issuers[name]
	if iss == nil {
		return nil, errTokenIssuer
	}
	key, err := iss.key(alg, kid)
	if err != nil {
		return nil, err
	}
	if err := checkSignature(s, key); err != nil {
		return nil, err
	}
	t := &token{issuer: name, kid: key.id, size: len(s.payload)}
	if err := t.readClaims(claims, iss); err != nil {
		return t, err
	}
	if t.claims, err = policy.NewClaims(claims); err != nil {
		return t, errTokenPayload
	}
	return t, nil
}

// checkSignature verifies over the parts as they came, by the key's algorithm
// and by nothing that the header says (RFC 7515 5.2).
func checkSignature(s segments, key verificationKey) error {
	signed := s.text[:strings.LastIndexByte(s.text, '.')]
	sum := sha256.Sum256([]byte(signed))
	good := false
	switch public := key.public.(type) {
	case *rsa.PublicKey: // RS256: RFC 7518 3.3
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], s.signature) == nil
	case *ecdsa.PublicKey: // ES256: RFC 7518 3.4, r and s of 32 bytes each
		good = len(s.signature) == 64 &&
			ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(s.signature[:32]), new(big.Int).SetBytes(s.signature[32:]))
	case ed25519.PublicKey: // EdDSA: RFC 8037 3.1
		good = ed25519.Verify(public, []byte(signed), s.signature)
	}
	if !good {
		return errTokenSignature
	}
	return nil
}

// readClaims holds the registered claims of RFC 7519 4.1 to their types. On an
// error what was read stays, for the record: the signature was good.
func (t *token) readClaims(claims map[string]any, iss *issuer) error {
	if sub, ok := claims["sub"]; ok {
		if t.subject, ok = sub.(string); !ok {
			return errTokenSubject
		}
	}
	exp, ok, err := numericDate(claims, "exp")
	if err != nil {
		return err
	}
	if !ok {
		return errTokenNoExpiry
	}
	t.expiry = exp
	if t.notBefore, _, err = numericDate(claims, "nbf"); err != nil {
		return err
	}
	iat, _, err := numericDate(claims, "iat")
	if err != nil {
		return err
	}
	if iat.After(exp) {
		return errTokenOrder
	}
	if iat.After(t.notBefore) {
		t.notBefore = iat // used before it was issued: one of two clocks is wrong
	}
	if t.audience, err = iss.audience(claims); err != nil {
		return err
	}
	for _, a := range t.audience {
		if slices.Contains(iss.audiences, a) {
			return nil
		}
	}
	return errTokenAudience
}

// audience is a text or a list of them, and must be there: a token for nobody
// in particular is a token for somebody else. Of an issuer that has a claim for
// it, a token without aud is judged by that; one with aud never is (RFC 7519 4.1.3).
func (i *issuer) audience(claims map[string]any) ([]string, error) {
	v, ok := claims["aud"]
	if !ok && i.audienceClaim != "" {
		if v, ok = claims[i.audienceClaim]; !ok {
			return nil, errTokenNoClaim
		}
	}
	if !ok {
		return nil, errTokenNoAudience
	}
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errTokenAudiences
			}
			out = append(out, s)
		}
		if len(out) == 0 {
			return nil, errTokenNoAudience
		}
		return out, nil
	}
	return nil, errTokenAudiences
}

// numericDate reads seconds since 1970; a fraction is allowed (RFC 7519 2).
func numericDate(claims map[string]any, name string) (time.Time, bool, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false, errTokenTime
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxNumericDate {
		return time.Time{}, false, errTokenTime
	}
	whole, frac := math.Modf(f)
	return time.Unix(int64(whole), int64(frac*1e9)), true, nil
}

// checkTime is what remains to be looked at on each use.
func (t *token) checkTime(now time.Time) error {
	switch {
	case !now.Before(t.expiry.Add(clockSkew)):
		return errTokenExpired
	case now.Add(clockSkew).Before(t.notBefore):
		return errTokenNotYet
	}
	return nil
}

// bearer returns the bearer token of a request (RFC 6750 2.1). Several
// authorization headers, or a scheme that only looks like Bearer, are refused:
// the upstream may read another one than we.
func bearer(headers map[string][]string) (text string, present bool, err error) {
	values := headers["authorization"]
	for _, v := range values {
		scheme := v
		if i := strings.IndexFunc(v, func(r rune) bool { return !isTokenRune(r) }); i >= 0 {
			scheme = v[:i]
		}
		if !strings.EqualFold(scheme, "bearer") && !strings.Contains(strings.ToLower(v), "bearer ") {
			continue
		}
		if len(values) > 1 {
			return "", true, errTokenScheme
		}
		rest, ok := strings.CutPrefix(v[len(scheme):], " ")
		if !ok || !strings.EqualFold(scheme, "bearer") {
			return "", true, errTokenScheme
		}
		return strings.TrimLeft(rest, " "), true, nil
	}
	return "", false, nil
}

func isTokenRune(r rune) bool { return r < 0x80 && isToken(string(r)) }

func issuersOf(configured []Issuer) (map[string]*issuer, []error) {
	out := map[string]*issuer{}
	var problems []error
	for _, c := range configured {
		keys, left := parseKeys(c.JWKS)
		for _, err := range left {
			problems = append(problems, fmt.Errorf("issuer %s: %w", c.Name, err))
		}
		if c.Issuer == "" || out[c.Issuer] != nil {
			problems = append(problems, fmt.Errorf("issuer %s: no issuer URL, or one that another has", c.Name))
			continue
		}
		out[c.Issuer] = &issuer{name: c.Name, audiences: slices.Clone(c.Audiences), audienceClaim: c.AudienceClaim, keys: keys}
	}
	return out, problems
}
