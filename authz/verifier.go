package authz

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"
)

// Verified tokens are remembered in two generations; the older one is dropped
// when the newer is full, by number or by the size of its payloads.
const (
	generationTokens = 4096
	generationBytes  = 4 << 20
)

// verifier verifies tokens of a fixed set of issuers. Keys that go take their
// verifier, and so every token remembered under them, along.
type verifier struct {
	configured []Issuer
	issuers    map[string]*issuer

	mu         sync.Mutex // guards what follows
	newer      map[digest]*token
	older      map[digest]*token
	newerBytes int
}

func newVerifier(configured []Issuer) (*verifier, []error) {
	issuers, problems := issuersOf(configured)
	return &verifier{configured: slices.Clone(configured), issuers: issuers, newer: map[digest]*token{}}, problems
}

// same reports whether the verifier already is that of these issuers, so that a
// new policy does not forget tokens.
func (v *verifier) same(configured []Issuer) bool {
	return slices.EqualFunc(v.configured, configured, func(a, b Issuer) bool {
		return a.Name == b.Name && a.Issuer == b.Issuer && slices.Equal(a.Audiences, b.Audiences) && a.AudienceClaim == b.AudienceClaim && string(a.JWKS) == string(b.JWKS)
	})
}

// verify returns the token, or what is wrong with it. With a good signature
// the token comes along with the error, for the record.
func (v *verifier) verify(text string, now time.Time) (*token, error) {
	s, err := split(text)
	if err != nil {
		return nil, err
	}
	d := s.digest()
	t := v.lookup(d)
	if t == nil {
		if t, err = verifySegments(s, v.issuers); err != nil {
			return t, err
		}
	}
	if err := t.checkTime(now); err != nil {
		return t, err
	}
	v.remember(d, t)
	return t, nil
}

func (v *verifier) lookup(d digest) *token {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.newer[d]; t != nil {
		return t
	}
	return v.older[d]
}

// remember keeps a token that was good just now. One in use stays; an expired
// one is never asked for again and goes with its generation.
func (v *verifier) remember(d digest, t *token) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.newer[d] != nil {
		return
	}
	if len(v.newer) >= generationTokens || v.newerBytes >= generationBytes {
		v.older, v.newer, v.newerBytes = v.newer, map[digest]*token{}, 0
	}
	v.newer[d] = t
	v.newerBytes += t.size
}

// summary is what a record may say of a token. t is nil unless its signature
// was good: nothing that an unproven token claims is recorded.
func summary(text string, t *token, err error, hashKey []byte) *TokenSummary {
	out := &TokenSummary{KeyedHash: keyedHash(text, hashKey)}
	if err != nil {
		out.Error = err.Error()
	}
	if t == nil {
		return out
	}
	out.Issuer, out.Subject, out.KeyID = escape(t.issuer, 256), escape(t.subject, 256), escape(t.kid, maxKeyID)
	out.Expiry = t.expiry
	for i, a := range t.audience {
		if i == 16 {
			break
		}
		out.Audience = append(out.Audience, escape(a, 256))
	}
	return out
}

// keyedHash is over the decoded token where it can be decoded.
func keyedHash(text string, key []byte) string {
	if len(key) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, key)
	if s, err := split(text); err == nil {
		d := s.digest()
		mac.Write(d[:])
	} else {
		mac.Write([]byte(text))
	}
	return hex.EncodeToString(mac.Sum(nil)[:8])
}
