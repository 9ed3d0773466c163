package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	maxJWKSBytes = 1 << 20
	maxJWKSKeys  = 64
	minRSABits   = 2048
	maxRSABits   = 8192
)

// CheckJWKS accepts a key set (RFC 7517) only if each key can be used: public,
// for signatures, and of an algorithm that is accepted (RS256, ES256, EdDSA).
// It is for keys that an operator wrote; of a fetched set UsableJWKS keeps
// what can be used.
func CheckJWKS(raw []byte) error {
	keys, err := splitJWKS(raw)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, k := range keys {
		kid, err := checkJWK(k)
		if err != nil {
			return fmt.Errorf("keys[%d]: %w", i, err)
		}
		if seen[kid] {
			return fmt.Errorf("keys[%d]: kid %s is given twice", i, abbreviate(kid))
		}
		seen[kid] = true
	}
	return nil
}

// UsableJWKS returns the set with only the keys that CheckJWKS would accept,
// and why each other one was left out. No usable key is an error.
func UsableJWKS(raw []byte) (jwks []byte, left []error, err error) {
	keys, err := splitJWKS(raw)
	if err != nil {
		return nil, nil, err
	}
	var kept []json.RawMessage
	seen := map[string]bool{}
	for i, k := range keys {
		kid, err := checkJWK(k)
		switch {
		case err != nil:
			left = append(left, fmt.Errorf("keys[%d]: %w", i, err))
		case seen[kid]:
			left = append(left, fmt.Errorf("keys[%d]: kid %s is given twice", i, abbreviate(kid)))
		default:
			seen[kid] = true
			kept = append(kept, k)
		}
	}
	if len(kept) == 0 {
		return nil, left, fmt.Errorf("JWKS: none of %d keys is usable: %w", len(keys), errors.Join(left...))
	}
	jwks, err = json.Marshal(map[string][]json.RawMessage{"keys": kept})
	if err != nil {
		return nil, left, fmt.Errorf("JWKS: %w", err)
	}
	return jwks, left, nil
}

func splitJWKS(raw []byte) ([]json.RawMessage, error) {
	if len(raw) > maxJWKSBytes {
		return nil, fmt.Errorf("JWKS of %d bytes: at most %d", len(raw), maxJWKSBytes)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("JWKS: not the JSON of RFC 7517 5: %w", err)
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxJWKSKeys {
		return nil, fmt.Errorf("JWKS: %d keys: want 1 to %d", len(set.Keys), maxJWKSKeys)
	}
	return set.Keys, nil
}

// checkJWK returns the key's kid. A symmetric key would let each holder of it
// make tokens, a private key has leaked by being here.
func checkJWK(raw json.RawMessage) (kid string, err error) {
	var head struct {
		Kty    string   `json:"kty"`
		Use    string   `json:"use"`
		KeyOps []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return "", errors.New("not a JSON object of RFC 7517 4")
	}
	switch {
	case head.Kty == "oct":
		return "", errors.New("kty oct: a shared secret cannot verify end-user tokens")
	case head.Use != "" && head.Use != "sig":
		return "", fmt.Errorf("use %s: want sig", abbreviate(head.Use))
	case len(head.KeyOps) > 0 && !slices.Contains(head.KeyOps, "verify"):
		return "", errors.New("key_ops without verify")
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() {
		return "", fmt.Errorf("kty %s: not a valid key", abbreviate(head.Kty))
	}
	if !k.IsPublic() {
		return "", errors.New("a private key: only public keys belong here, and this one is to be replaced")
	}
	alg, err := algorithmOf(k.Key)
	if err != nil {
		return "", err
	}
	if k.Algorithm != "" && k.Algorithm != string(alg) {
		return "", fmt.Errorf("alg %s does not fit the key or is not accepted: want %s", abbreviate(k.Algorithm), alg)
	}
	return k.KeyID, nil
}

// algorithmOf pins the algorithm by the key, never by a token's header
// (RFC 8725 3.1).
func algorithmOf(key any) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return "", fmt.Errorf("RSA key of %d bits: want %d to %d", n, minRSABits, maxRSABits)
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize != 256 {
			return "", fmt.Errorf("curve %s: only P-256 (ES256) is accepted", k.Curve.Params().Name)
		}
		return jose.ES256, nil
	case ed25519.PublicKey:
		return jose.EdDSA, nil
	}
	return "", fmt.Errorf("key of type %T is not accepted", key)
}
