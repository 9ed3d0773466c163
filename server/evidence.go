package server

import (
	"errors"
	"fmt"
	"time"

	"signet.example/attestation/nodes"
	"signet.example/attestation/platform"
	"signet.example/authz/jwt"
	"signet.example/server/fault"
	"signet.example/server/issuers"
)

// platformRefresh is how often the keys of a platform are fetched, whatever tokens are
// shown: by a token of another key nobody makes the server ask.
const platformRefresh = time.Hour

// platforms are issuers of tokens by which hosts join.
func platforms(of []platform.Issuer) []jwt.Issuer {
	var list []jwt.Issuer
	for _, i := range of {
		list = append(list, jwt.Issuer{Name: i.Name, Issuer: i.URL, JWKSURL: i.Keys, JWKS: i.JWKS, Refresh: platformRefresh})
	}
	return list
}

// issuersOf are those of all methods by which hosts join. Each key of a file must be good: an
// operator wrote it.
func issuersOf(cfg nodes.Config) ([]jwt.Issuer, error) {
	of, err := cfg.Issuers()
	if err != nil {
		return nil, err
	}
	for _, i := range of {
		if i.JWKS == nil {
			continue
		}
		if err := jwt.CheckKeys(i.JWKS); err != nil {
			return nil, fmt.Errorf("%s: keys_file: %w", i.Name, err)
		}
	}
	return platforms(of), nil
}

// platformTokens verifies tokens by which hosts join (platform.Tokens).
type platformTokens struct{ keys *issuers.Keys }

// Verify implements platform.Tokens. Keys that are not here, all or the one that the token
// names, may be at the issuer: its host is to wait for them, since no token has them fetched
// (docs/decisions/085).
func (p platformTokens) Verify(of []platform.Issuer, text, audience string, now time.Time) (platform.Token, error) {
	t, err := p.keys.Verify(platforms(of), text, audience, now)
	switch {
	case errors.Is(err, jwt.ErrNoKeys), errors.Is(err, jwt.ErrNoKey):
		return platform.Token{}, fmt.Errorf("%w: %w: %w; this server fetches its keys every %s", fault.Unavailable, platform.ErrNotNow, err, platformRefresh)
	case err != nil:
		return platform.Token{}, err
	}
	return platform.Token{Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, Issued: t.Issued, Expires: t.Expiry, Claims: t.Claims}, nil
}
