package authz

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	maxJWKS    = 1 << 20
	maxKeys    = 64
	maxKeyID   = 256
	minRSABits = 2048
	maxRSABits = 8192
)

// verificationKey is a public key with the one algorithm that it is used with.
// The key pins the algorithm; a token's header only has to agree (RFC 8725 3.1).
type verificationKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	public    any
}

// parseKeys reads a JWKS. Keys that are for something else, or of a kind that
// is not accepted, are left out with the reason, as RFC 7517 5 wants.
func parseKeys(jwks []byte) ([]verificationKey, []error) {
	if len(jwks) > maxJWKS {
		return nil, []error{fmt.Errorf("key set of more than %d bytes", maxJWKS)}
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, []error{errors.New("key set is not JSON of the form {\"keys\": […]}")}
	}
	if len(set.Keys) > maxKeys {
		return nil, []error{fmt.Errorf("key set of %d keys: at most %d", len(set.Keys), maxKeys)}
	}
	var keys []verificationKey
	var left []error
	for i, raw := range set.Keys {
		k, err := parseKey(raw)
		if err == nil && hasKey(keys, k) {
			err = errors.New("a second key of its kid and algorithm: the first one is used")
		}
		if err != nil {
			left = append(left, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, left
}

func hasKey(keys []verificationKey, k verificationKey) bool {
	for _, other := range keys {
		if other.id == k.id && other.algorithm == k.algorithm {
			return true
		}
	}
	return false
}

func parseKey(raw json.RawMessage) (verificationKey, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return verificationKey{}, err
	}
	if err := checkKeyUse(members); err != nil {
		return verificationKey{}, err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return verificationKey{}, errors.New("not a usable JWK") // the error may quote it
	}
	if !jwk.IsPublic() || !jwk.Valid() || len(jwk.KeyID) > maxKeyID {
		return verificationKey{}, errors.New("not a public key, not valid, or with a long kid")
	}
	alg, err := algorithmOf(jwk.Key)
	if err != nil {
		return verificationKey{}, err
	}
	if jwk.Algorithm != "" && jwk.Algorithm != string(alg) {
		return verificationKey{}, fmt.Errorf("alg %.20q of a key for %s", jwk.Algorithm, alg)
	}
	return verificationKey{id: jwk.KeyID, algorithm: alg, public: jwk.Key}, nil
}

// checkKeyUse: RFC 7517 4.2 and 4.3; a key for anything else does not verify.
func checkKeyUse(members map[string]any) error {
	if use, ok := members["use"]; ok && use != "sig" {
		return errors.New("use is not sig")
	}
	ops, ok := members["key_ops"]
	if !ok {
		return nil
	}
	list, _ := ops.([]any)
	for _, op := range list {
		if op == "verify" {
			return nil
		}
	}
	return errors.New("key_ops has no verify")
}

// algorithmOf pins the algorithm: the sizes are checked here since OPA, linked
// into this binary, switches other libraries' checks off.
func algorithmOf(key any) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.E < 3 || k.E%2 == 0 {
			return "", fmt.Errorf("RSA key of %d bits: want %d to %d and an odd exponent", bits, minRSABits, maxRSABits)
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", errors.New("EC key on another curve than P-256")
		}
		return jose.ES256, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", errors.New("Ed25519 key of wrong size")
		}
		return jose.EdDSA, nil
	}
	return "", errors.New("kind of key is not accepted: want RSA, EC P-256 or Ed25519")
}
