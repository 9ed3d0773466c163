package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"

	jose "github.com/go-jose/go-jose/v4"

	"signet.example/identity"
)

const (
	maxSetBytes = 1 << 20
	maxKeys     = 64
	minRSABits  = 2048
	maxRSABits  = 8192
)

// MaxKeyID bounds the kid of a key and of a token.
const MaxKeyID = 256

// ErrOtherUse is returned for a key that is there for something else than
// signatures, as most providers publish one: nothing is lost without it.
var ErrOtherUse = errors.New("not for signatures")

// key is a public key with the one algorithm that it is used with.
// The key pins the algorithm; a token's header only has to agree (RFC 8725 3.1).
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	public    any
}

// CheckKeys accepts a key set (RFC 7517) only if each key can be used: public,
// for signatures, and of an algorithm that is accepted (RS256, ES256, ES384, EdDSA).
// It is for keys that an operator wrote; of a fetched set UsableKeys keeps
// what can be used.
func CheckKeys(raw []byte) error {
	keys, err := splitSome(raw)
	if err != nil {
		return err
	}
	if _, _, left := read(keys); len(left) > 0 {
		return left[0]
	}
	return nil
}

// UsableKeys returns the set with only the keys that CheckKeys would accept,
// and why each other one was left out, as RFC 7517 5 wants. No usable key is an error.
func UsableKeys(raw []byte) (set []byte, left []error, err error) {
	keys, err := splitSome(raw)
	if err != nil {
		return nil, nil, err
	}
	_, kept, left := read(keys)
	if len(kept) == 0 {
		return nil, left, fmt.Errorf("JWKS: none of %d keys is usable: %w", len(keys), errors.Join(left...))
	}
	set, err = json.Marshal(map[string][]json.RawMessage{"keys": kept})
	if err != nil {
		return nil, left, fmt.Errorf("JWKS: %w", err)
	}
	return set, left, nil
}

// splitSome is splitKeys of a set that must have keys.
func splitSome(raw []byte) ([]json.RawMessage, error) {
	keys, err := splitKeys(raw)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("JWKS: 0 keys: want 1 to %d", maxKeys)
	}
	return keys, err
}

func splitKeys(raw []byte) ([]json.RawMessage, error) {
	if len(raw) > maxSetBytes {
		return nil, fmt.Errorf("JWKS of %d bytes: at most %d", len(raw), maxSetBytes)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("JWKS: not the JSON of RFC 7517 5: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("JWKS: %d keys: want 1 to %d", len(set.Keys), maxKeys)
	}
	return set.Keys, nil
}

// read returns the keys that can be used, as they are and as they were written, and
// why each other one cannot.
func read(raw []json.RawMessage) (keys []key, kept []json.RawMessage, left []error) {
	for i, text := range raw {
		k, err := parseKey(text)
		if err == nil {
			err = checkDistinct(keys, k)
		}
		if err != nil {
			left = append(left, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		keys, kept = append(keys, k), append(kept, text)
	}
	return keys, kept, left
}

// checkDistinct refuses a key that a token could not tell from one before it.
func checkDistinct(keys []key, k key) error {
	for _, other := range keys {
		switch {
		case other.id != k.id || other.algorithm != k.algorithm:
		case k.id == "":
			return fmt.Errorf("a second %s key without kid: a token could not say which signed it, so the first one is used", k.algorithm)
		default:
			return fmt.Errorf("a second %s key of kid %s: a token could not say which signed it, so the first one is used", k.algorithm, identity.Abbreviate(k.id))
		}
	}
	return nil
}

// parseKey accepts a key that can verify. A symmetric key would let each holder of it
// make tokens, a private key has leaked by being here. No error quotes the key.
func parseKey(raw json.RawMessage) (key, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return key{}, err
	}
	if members["kty"] == "oct" {
		return key{}, errors.New("kty oct: a shared secret cannot verify end-user tokens")
	}
	if err := checkKeyUse(members); err != nil {
		return key{}, err
	}
	var k jose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil || !k.Valid() {
		kty, _ := members["kty"].(string)
		return key{}, fmt.Errorf("kty %s: not a valid key", identity.Abbreviate(kty))
	}
	if !k.IsPublic() {
		return key{}, errors.New("a private key: only public keys belong here, and this one is to be replaced")
	}
	if len(k.KeyID) > MaxKeyID {
		return key{}, fmt.Errorf("kid of %d bytes: at most %d", len(k.KeyID), MaxKeyID)
	}
	alg, err := algorithmOf(k.Key)
	if err != nil {
		return key{}, err
	}
	if k.Algorithm != "" && k.Algorithm != string(alg) {
		return key{}, fmt.Errorf("alg %s does not fit the key or is not accepted: want %s", identity.Abbreviate(k.Algorithm), alg)
	}
	return key{id: k.KeyID, algorithm: alg, public: k.Key}, nil
}

// checkKeyUse: RFC 7517 4.2 and 4.3; a key for anything else does not verify.
func checkKeyUse(members map[string]any) error {
	if use, ok := members["use"]; ok && use != "sig" {
		name, _ := use.(string)
		return fmt.Errorf("use %s: %w", identity.Abbreviate(name), ErrOtherUse)
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
	return fmt.Errorf("key_ops without verify: %w", ErrOtherUse)
}

// algorithmOf pins the algorithm by the key, never by a token's header (RFC 8725 3.1).
// The sizes are checked here since OPA, linked into this binary, switches other
// libraries' checks off.
func algorithmOf(public any) (jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.E < 3 || k.E%2 == 0 {
			return "", fmt.Errorf("RSA key of %d bits: want %d to %d and an odd exponent", bits, minRSABits, maxRSABits)
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		}
		return "", fmt.Errorf("curve %s: only P-256 (ES256) and P-384 (ES384) are accepted", k.Curve.Params().Name)
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", errors.New("Ed25519 key of wrong size")
		}
		return jose.EdDSA, nil
	}
	return "", errors.New("kind of key is not accepted: want RSA, EC P-256, EC P-384 or Ed25519")
}
