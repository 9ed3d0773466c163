// Package platform has what evidence has in common for which a platform vouches, such as AWS or
// Kubernetes: what of it is verified elsewhere, that it is good once, and how many agents may
// join by what is one principal's. It must not know any method, nor how tokens are verified.
//
// Main types in reading order: Issuer, Token, Server. Safe for concurrent use.
package platform

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// DefaultAgents of one principal are as many as a service of ECS has tasks by AWS's own quota.
	DefaultAgents, maxAgents = 5000, 16000
	maxToken                 = 8 << 10
	// remembered is how long after its end evidence that was used is known: clocks may be set.
	remembered = time.Hour
)

// ErrNotNow is returned where evidence cannot be verified, or used up, at this moment: it may
// be good, and the host is to try again.
var ErrNotNow = errors.New("evidence cannot be verified now")

// ErrLater is ErrNotNow with a reason that the host may see.
var ErrLater = fmt.Errorf("%w; try again later", ErrNotNow)

// ErrUsed is ErrLater for evidence that was used before, where the host will have other evidence.
var ErrUsed = fmt.Errorf("%w: it was used before", ErrLater)

// Issuer is one whose keys are needed. They are at an URL, or here.
type Issuer struct {
	Name string // for logs, metrics and findings
	URL  string
	Keys string // where its key set is
	JWKS []byte // or the set itself
}

// Token is what a token says whose signature is good.
type Token struct {
	Issuer, Subject string
	Audience        []string
	Issued, Expires time.Time // Issued is zero where it does not say
	// Claims are all of it, decoded: objects are map[string]any.
	Claims map[string]any
}

// Tokens verifies tokens. It is called by any goroutine, and waits for nobody.
type Tokens interface {
	// Verify checks a token's form, its signature by a key of the one of these issuers that it
	// names, that it is for the audience, and its times. It may return ErrNotNow.
	Verify(of []Issuer, text, audience string, now time.Time) (Token, error)
}

// Once is where it is kept what was used. It is called by any goroutine.
type Once interface {
	// Used reports whether what has this hash was used. It writes nothing.
	Used(ctx context.Context, hash []byte, now time.Time) (bool, error)
	// UseOnce reports whether what has this hash is used for the first time, whatever runs
	// beside it. On return that is durable, until then.
	UseOnce(ctx context.Context, hash []byte, now, until time.Time) (first bool, err error)
}

// Quota is how many agents a principal may have, and how fast they may come. It is called by any
// goroutine, and waits for nobody.
type Quota interface {
	// Take takes one more agent of a principal's quota, or returns why there is none. An agent that
	// joined by evidence of this key before is not one more; the key is nil where there is none.
	Take(principal string, key []byte) error
}

// Server is what verifiers need of the server.
type Server struct {
	Tokens Tokens
	Once   Once
	Quota  Quota
	// Group returns why a host with these selectors is in no group. It is called by any goroutine.
	Group func(selectors []string) error
}

// Use uses up good evidence, which ends then, for an agent of a principal with these selectors,
// and reports whether it is used for the first time. Only what is good comes here, so that nobody takes of the quota of
// somebody else; what finds nothing left there, or no group, is not used up, and what was used takes nothing.
func (s Server) Use(ctx context.Context, principal string, selectors []string, key, id []byte, now, end time.Time) (first bool, err error) {
	used, err := s.Once.Used(ctx, id, now)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrNotNow, err)
	case used:
		return false, nil
	}
	if err := s.Group(selectors); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	if err := s.Quota.Take(principal, key); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	first, err = s.Once.UseOnce(ctx, id, now, end.Add(remembered))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	return first, nil
}

// Hash is by what something is known that these texts tell from everything else.
func Hash(parts ...string) []byte {
	h := sha256.New()
	for _, part := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // names and bounded texts
		_, _ = h.Write([]byte(part))                                          // a hash takes everything
	}
	return h.Sum(nil)
}

// CheckToken refuses a token that is too large to be looked at. It verifies nothing.
func CheckToken(token string) error {
	if n := len(token); n == 0 || n > maxToken {
		return fmt.Errorf("token of %d bytes: want 1 to %d", n, maxToken)
	}
	return nil
}

// CheckAgents refuses a number of agents that no principal may have; 0 is the default.
func CheckAgents(n int) error {
	if n < 0 || n > maxAgents {
		return fmt.Errorf("%d: want 1 to %d", n, maxAgents)
	}
	return nil
}
