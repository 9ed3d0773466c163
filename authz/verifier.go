package authz

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"signet.example/authz/jwt"
	"signet.example/policy"
)

// Verified tokens are remembered in two generations; the older one is dropped
// when the newer is full, by number or by the size of its payloads.
const (
	generationTokens = 4096
	generationBytes  = 4 << 20
)

// token is one that was verified, with its claims as policies see them.
type token struct {
	verified *jwt.Token
	claims   *policy.Claims
}

// known is what a token is remembered by: a load balancer's also by who brings it, since of two
// issuers with its signer each takes it from callers of its own.
type known struct {
	digest jwt.Digest
	from   jwt.From
}

func (b brought) known(c jwt.Compact) known {
	if b.alb {
		return known{c.Digest(), b.from}
	}
	return known{digest: c.Digest()}
}

// verifier verifies tokens of a fixed set of issuers. Keys that go take their
// verifier, and so every token remembered under them, along.
type verifier struct {
	configured []Issuer
	issuers    jwt.Issuers

	mu         sync.Mutex // guards what follows
	newer      map[known]*token
	older      map[known]*token
	newerBytes int
}

func newVerifier(configured []Issuer) (*verifier, []error) {
	issuers, problems := jwt.NewIssuers(configured)
	return &verifier{configured: slices.Clone(configured), issuers: issuers, newer: map[known]*token{}}, problems
}

// same reports whether the verifier already is that of these issuers, so that a
// new policy does not forget tokens.
func (v *verifier) same(configured []Issuer) bool {
	return slices.EqualFunc(v.configured, configured, func(a, b Issuer) bool {
		return a.Name == b.Name && a.Issuer == b.Issuer && slices.Equal(a.Audiences, b.Audiences) && a.AudienceClaim == b.AudienceClaim && string(a.JWKS) == string(b.JWKS) && a.ALB.Same(b.ALB)
	})
}

// verify returns the token, or what is wrong with it. With a good signature
// the token comes along with the error, for the record.
func (v *verifier) verify(b brought, now time.Time) (*token, error) {
	c, err := b.parse()
	if err != nil {
		return nil, err
	}
	k := b.known(c)
	t := v.lookup(k)
	if t == nil {
		if t, err = v.first(c, b); err != nil {
			return t, err
		}
	}
	if err := t.verified.CheckTime(now); err != nil {
		return t, err
	}
	v.remember(k, t)
	return t, nil
}

// first verifies a token that is not remembered.
func (v *verifier) first(c jwt.Compact, b brought) (*token, error) {
	verified, err := v.verified(c, b)
	if verified == nil {
		return nil, err
	}
	t := &token{verified: verified}
	if err != nil {
		return t, err
	}
	if t.claims, err = policy.NewClaims(verified.Claims); err != nil {
		return t, jwt.ErrPayload
	}
	verified.Claims = nil // policies see them by claims
	return t, nil
}

func (v *verifier) verified(c jwt.Compact, b brought) (*jwt.Token, error) {
	if b.alb {
		return v.issuers.VerifyALB(c, b.from)
	}
	return v.issuers.Verify(c)
}

func (v *verifier) lookup(k known) *token {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.newer[k]; t != nil {
		return t
	}
	return v.older[k]
}

// remember keeps a token that was good just now. One in use stays; an expired
// one is never asked for again and goes with its generation.
func (v *verifier) remember(k known, t *token) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.newer[k] != nil {
		return
	}
	if len(v.newer) >= generationTokens || v.newerBytes >= generationBytes {
		v.older, v.newer, v.newerBytes = v.newer, map[known]*token{}, 0
	}
	v.newer[k] = t
	v.newerBytes += t.verified.Size
}

// summary is what a record may say of a token. t is nil unless its signature
// was good: nothing that an unproven token claims is recorded.
func summary(b brought, t *token, err error, hashKey []byte) *TokenSummary {
	out := &TokenSummary{KeyedHash: keyedHash(b, hashKey)}
	if err != nil {
		out.Error = err.Error()
	}
	if t == nil {
		return out
	}
	out.Issuer, out.Subject, out.KeyID = escape(t.verified.Issuer, 256), escape(t.verified.Subject, 256), escape(t.verified.KeyID, jwt.MaxKeyID)
	out.Expiry = t.verified.Expiry
	for i, a := range t.verified.Audience {
		if i == 16 {
			break
		}
		out.Audience = append(out.Audience, escape(a, 256))
	}
	return out
}

// keyedHash is over the decoded token where it can be decoded.
func keyedHash(b brought, key []byte) string {
	if len(key) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, key)
	if c, err := b.parse(); err == nil {
		d := c.Digest()
		mac.Write(d[:])
	} else {
		mac.Write([]byte(b.text))
	}
	return hex.EncodeToString(mac.Sum(nil)[:8])
}
