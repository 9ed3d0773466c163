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

// Verify implements awstask.Tokens. Keys that are not here, all or the one that the token
// names, may be at the issuer: its host is to wait for them, since no token has them fetched
// (docs/decisions/085).
func (p platformTokens) Verify(text, audience string, now time.Time) (awstask.Token, error) {
	t, err := p.keys.Verify(p.of, text, audience, now)
	switch {
	case errors.Is(err, jwt.ErrNoKeys), errors.Is(err, jwt.ErrNoKey):
		return awstask.Token{}, fmt.Errorf("%w: %w: %w; this server fetches its keys every %s", fault.Unavailable, awstask.ErrNotNow, err, platformRefresh)
	case err != nil:
		return awstask.Token{}, err
	}
	return awstask.Token{Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, Issued: t.Issued, Expires: t.Expiry, Claims: t.Claims}, nil
}
