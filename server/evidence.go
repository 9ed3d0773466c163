package server

import (
	"errors"
	"fmt"
	"time"

	"signet.example/attestation/awstask"
	"signet.example/attestation/nodes"
	"signet.example/authz/jwt"
	"signet.example/server/fault"
	"signet.example/server/issuers"
)

// platformRefresh is how often the keys of a platform are fetched, whatever tokens are
// shown: by a token of another key nobody makes the server ask.
const platformRefresh = time.Hour

// platforms are the issuers of tokens by which hosts join.
func platforms(cfg nodes.Config) []jwt.Issuer {
	var list []jwt.Issuer
	for _, i := range cfg.AWSTask.Issuers() {
		list = append(list, jwt.Issuer{Name: i.Name, Issuer: i.URL, JWKSURL: i.Keys, Refresh: platformRefresh})
	}
	return list
}

// platformTokens verifies tokens by which hosts join (awstask.Tokens).
type platformTokens struct {
	keys *issuers.Keys
	of   []jwt.Issuer
}

// Verify implements awstask.Tokens.
func (p platformTokens) Verify(text, audience string, now time.Time) (awstask.Token, error) {
	t, err := p.keys.Verify(p.of, text, audience, now)
	switch {
	case errors.Is(err, jwt.ErrNoKeys):
		return awstask.Token{}, fmt.Errorf("%w: %w: %w", fault.Unavailable, awstask.ErrNotNow, err)
	case err != nil:
		return awstask.Token{}, err
	}
	return awstask.Token{Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, Issued: t.Issued, Expires: t.Expiry, Claims: t.Claims}, nil
}
