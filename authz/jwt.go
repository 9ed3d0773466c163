package authz

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	errTokenForm      = errors.New("malformed")
	errTokenSize      = errors.New("too large")
	errTokenHeader    = errors.New("header is not accepted")
	errTokenAlgorithm = errors.New("algorithm is not accepted")
	errTokenClaims    = errors.New("claims are not accepted")
	errTokenIssuer    = errors.New("issuer is unknown")
	errTokenAudience  = errors.New("audience is another")
	errTokenKey       = errors.New("key is unknown")
	errTokenSignature = errors.New("signature is wrong")
	errTokenExpired   = errors.New("expired")
	errTokenNotYet    = errors.New("not valid yet")
	errTokenExpiry    = errors.New("expiry is missing or not sane")
)

// token is a verified token, but for the time, which is looked at on each use.
type token struct {
	claims               *policy.Claims
	issuer, subject, kid string
	audience             []string
	expiry, notBefore    time.Time
	size                 int // of the payload
}

// digest tells tokens apart by what they are decoded to: their text is
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

// tokenHeader reads the protected header. Only alg, kid and typ may be in it:
// every other name is an instruction to us by whoever made the token (jku,
// x5u, jwk, x5c: which key; crit, cty, zip, b64: how to read it).
func tokenHeader(raw []byte) (alg, kid string, err error) {
	members, err := decodeObject(raw)
	if err != nil {
		return "", "", errTokenHeader
	}
	for name, value := range members {
		s, ok := value.(string)
		if !ok || !slices.Contains([]string{"alg", "kid", "typ"}, name) {
			return "", "", errTokenHeader
		}
		if name == "typ" && !acceptedType(s) {
			return "", "", errTokenHeader
		}
	}
	alg, _ = members["alg"].(string)
	kid, hasKid := members["kid"].(string)
	if len(kid) > maxKeyID || hasKid && kid == "" {
		return "", "", errTokenHeader
	}
	if !slices.Contains([]jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}, jose.SignatureAlgorithm(alg)) {
		return "", "", errTokenAlgorithm
	}
	return alg, kid, nil
}

// acceptedType: RFC 7519 5.1 and RFC 9068 2.1; the names are case-insensitive
// media types. A token that says it is something else is something else.
func acceptedType(typ string) bool {
	t := strings.TrimPrefix(strings.ToLower(typ), "application/")
	return t == "jwt" || t == "at+jwt"
}

// issuer is one trusted issuer with its usable keys.
type issuer struct {
	name      string
	audiences []string
	keys      []verificationKey
}

// key finds the one key that a token may be signed by. Without kid there must
// be no choice: trying all would let a sender choose the work.
func (i *issuer) key(alg, kid string) (verificationKey, error) {
	var found []verificationKey
	for _, k := range i.keys {
		if string(k.algorithm) == alg && (kid == "" || k.id == kid) {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		return verificationKey{}, errTokenKey
	}
	return found[0], nil
}

// verifySegments does everything but the look at the clock.
func verifySegments(s segments, issuers map[string]*issuer) (*token, error) {
	alg, kid, err := tokenHeader(s.header)
	if err != nil {
		return nil, err
	}
	claims, err := decodeObject(s.payload)
	if err != nil {
		return nil, errTokenClaims
	}
	// The issuer's name is not proven yet. It only chooses whose keys must have
	// signed: an issuer's key never speaks for another issuer.
	name, ok := claims["iss"].(string)
	iss := issuers[name]
	if !ok || iss == nil {
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
		return t, errTokenClaims
	}
	return t, nil
}

func checkSignature(s segments, key verificationKey) error {
	jws, err := jose.ParseSignedCompact(s.text, []jose.SignatureAlgorithm{key.algorithm})
	if err != nil {
		return errTokenForm
	}
	if _, err := jws.Verify(key.public); err != nil {
		return errTokenSignature
	}
	return nil
}

// readClaims holds the registered claims of RFC 7519 4.1 to their types. On an
// error what was read stays, for the record: the signature was good.
func (t *token) readClaims(claims map[string]any, iss *issuer) error {
	if sub, ok := claims["sub"]; ok {
		if t.subject, ok = sub.(string); !ok {
			return errTokenClaims
		}
	}
	exp, ok, err := numericDate(claims, "exp")
	if err != nil || !ok {
		return errTokenExpiry
	}
	t.expiry = exp
	if t.notBefore, _, err = numericDate(claims, "nbf"); err != nil {
		return errTokenClaims
	}
	iat, _, err := numericDate(claims, "iat")
	if err != nil || iat.After(exp) {
		return errTokenClaims
	}
	if iat.After(t.notBefore) {
		t.notBefore = iat // used before it was issued: one of two clocks is wrong
	}
	if t.audience, err = audience(claims["aud"]); err != nil {
		return err
	}
	for _, a := range t.audience {
		if slices.Contains(iss.audiences, a) {
			return nil
		}
	}
	return errTokenAudience
}

// audience is a string or a list of them, and must be there: a token for
// nobody in particular is a token for somebody else.
func audience(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errTokenClaims
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, errTokenAudience
}

// numericDate reads seconds since 1970; a fraction is allowed (RFC 7519 2).
func numericDate(claims map[string]any, name string) (time.Time, bool, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false, errTokenClaims
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxNumericDate {
		return time.Time{}, false, errTokenClaims
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
			return "", true, errTokenForm
		}
		rest, ok := strings.CutPrefix(v[len(scheme):], " ")
		if !ok || !strings.EqualFold(scheme, "bearer") {
			return "", true, errTokenForm
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
		out[c.Issuer] = &issuer{name: c.Name, audiences: slices.Clone(c.Audiences), keys: keys}
	}
	return out, problems
}
