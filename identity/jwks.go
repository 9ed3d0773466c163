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
	seen := seenKeys{}
	for i, k := range keys {
		if err := seen.take(k); err != nil {
			return fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	return nil
}

// ErrOtherUse is returned for a key that is there for something else than
// signatures, as most providers publish one: nothing is lost without it.
var ErrOtherUse = errors.New("not for signatures")

// keyName is what a token names its key by.
type keyName struct {
	kid string
	alg jose.SignatureAlgorithm
}

type seenKeys map[keyName]bool

// take accepts a key that can be used and told from those before.
func (s seenKeys) take(raw json.RawMessage) error {
	name, err := checkJWK(raw)
	switch {
	case err != nil:
		return err
	case s[name] && name.kid == "":
		return fmt.Errorf("a second %s key without kid: a token could not say which signed it, so the first one is used", name.alg)
	case s[name]:
		return fmt.Errorf("a second %s key of kid %s: a token could not say which signed it, so the first one is used", name.alg, abbreviate(name.kid))
	}
	s[name] = true
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
	seen := seenKeys{}
	for i, k := range keys {
		if err := seen.take(k); err != nil {
			left = append(left, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		kept = append(kept, k)
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

// checkJWK returns what tokens name the key by. A symmetric key would let each holder of it
// make tokens, a private key has leaked by being here.
func checkJWK(raw json.RawMessage) (keyName, error) {
	var head struct {
		Kty    string   `json:"kty"`
		Use    string   `json:"use"`
		KeyOps []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return keyName{}, errors.New("not a JSON object of RFC 7517 4")
	}
	switch {
	case head.Kty == "oct":
		return keyName{}, errors.New("kty oct: a shared secret cannot verify end-user tokens")
	case head.Use != "" && head.Use != "sig":
		return keyName{}, fmt.Errorf("use %s: %w", abbreviate(head.Use), ErrOtherUse)
	case len(head.KeyOps) > 0 && !slices.Contains(head.KeyOps, "verify"):
		return keyName{}, fmt.Errorf("key_ops without verify: %w", ErrOtherUse)
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() {
		return keyName{}, fmt.Errorf("kty %s: not a valid key", abbreviate(head.Kty))
	}
	if !k.IsPublic() {
		return keyName{}, errors.New("a private key: only public keys belong here, and this one is to be replaced")
	}
	alg, err := algorithmOf(k.Key)
	if err != nil {
		return keyName{}, err
	}
	if k.Algorithm != "" && k.Algorithm != string(alg) {
		return keyName{}, fmt.Errorf("alg %s does not fit the key or is not accepted: want %s", abbreviate(k.Algorithm), alg)
	}
	return keyName{k.KeyID, alg}, nil
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
