package dev

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// tokenMint is the demo's identity provider: one key that lives as long as the demo.
type tokenMint struct {
	key    *ecdsa.PrivateKey
	signer jose.Signer
}

func newTokenMint() (*tokenMint, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the demo's token key: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "demo-1"}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("make the demo's token signer: %w", err)
	}
	return &tokenMint{key: key, signer: signer}, nil
}

func (m *tokenMint) jwks() string {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: m.key.Public(), KeyID: "demo-1", Algorithm: string(jose.ES256), Use: "sig"}}}
	out, err := json.Marshal(set)
	if err != nil {
		panic("internal error: " + err.Error()) // a P-256 key always encodes
	}
	return string(out)
}

// token for the demo's customer, valid for lifetime (negative: expired).
func (m *tokenMint) token(lifetime time.Duration) (string, error) {
	now := time.Now()
	claims := jwt.Claims{
		Issuer: issuer, Subject: "ana", Audience: jwt.Audience{"orders"},
		IssuedAt: jwt.NewNumericDate(now.Add(-time.Hour)), Expiry: jwt.NewNumericDate(now.Add(lifetime)),
	}
	return jwt.Signed(m.signer).Claims(claims).Claims(map[string]any{"scope": "orders:read"}).Serialize()
}

// writeSecret makes a password file for the demo's certificate authority.
func writeSecret(path string) error {
	return os.WriteFile(path, []byte(rand.Text()+"\n"), 0o600)
}
