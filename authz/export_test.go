package authz

import (
	"crypto/sha256"
	"fmt"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/authz/jwt"
)

// ParseTarget gives the tests a path as policy would see it.
func ParseTarget(raw string) (path string, segments []string, query map[string][]string, err error) {
	t, err := parseTarget(raw)
	return t.path, t.segments, t.query, err
}

var (
	CanonicalHost = canonicalHost
	Escape        = escape
	Bearer        = bearer
)

// TokenVerifier verifies each token as if for the first time.
func TokenVerifier(issuers []Issuer) func(text string, now time.Time) error {
	v, _ := newVerifier(issuers)
	return func(text string, now time.Time) error {
		clear(v.newer)
		_, err := v.verify(brought{text: text}, now)
		return err
	}
}

// Remembered counts the tokens that the server's verifier remembers.
func (s *Server) Remembered() int {
	v := s.state.Load().verifier
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.newer) + len(v.older)
}

// RememberAfter tells how many of n tokens of a size are remembered.
func RememberAfter(n, size int) int {
	v, _ := newVerifier(nil)
	for i := range n {
		v.remember(known{digest: jwt.Digest{byte(i), byte(i >> 8), byte(i >> 16)}}, &token{verified: &jwt.Token{Size: size}})
	}
	return len(v.newer) + len(v.older)
}

const (
	GenerationTokens = generationTokens
	GenerationBytes  = generationBytes
)

// PeersKept is how many callers are remembered at least.
const PeersKept = peersKept

// PeersRemembered is how many are after n.
func PeersRemembered(n int) int {
	var p peers
	for i := range n {
		p.keep(sha256.Sum256(fmt.Append(nil, i)), verdict{})
	}
	return len(p.recent) + len(p.older)
}

// Presented is the identity of a question's caller.
func Presented(s *Server, q *authv3.CheckRequest) (spiffeid.ID, error) {
	headers, err := readHeaders(q.GetAttributes().GetRequest().GetHttp(), nil)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return s.peers.verified(q, takeChain(headers))
}

// Waiting is how many checks wait for their turn.
func (s *Server) Waiting() (n int) {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	for _, l := range s.turns.lines {
		n += l.waiting.Len()
	}
	return n
}
