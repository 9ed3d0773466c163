package jwt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

// WithALBKey returns a key set with one more key, of an id under which a load balancer's key
// was found, in PEM; one of that id is replaced. Of too many the first one is left out: it is
// found again by whoever needs it.
func WithALBKey(set []byte, kid string, text []byte) ([]byte, error) {
	added, err := albKeyOf(kid, text)
	if err != nil {
		return nil, err
	}
	keys, err := albKeys(set)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(k jose.JSONWebKey) bool { return k.KeyID == kid })
	return encodeKeys(append(keys[max(0, len(keys)+1-maxKeys):], *added))
}

// WithoutALBKey returns a key set without the key of an id.
func WithoutALBKey(set []byte, kid string) ([]byte, error) {
	keys, err := albKeys(set)
	if err != nil {
		return nil, err
	}
	return encodeKeys(slices.DeleteFunc(keys, func(k jose.JSONWebKey) bool { return k.KeyID == kid }))
}

// ALBKeyIDs lists the ids of a key set.
func ALBKeyIDs(set []byte) []string {
	keys, _ := albKeys(set) // of what cannot be read nothing is known
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.KeyID)
	}
	return ids
}

func albKeys(set []byte) ([]jose.JSONWebKey, error) {
	if len(set) == 0 {
		return nil, nil
	}
	var all jose.JSONWebKeySet
	if err := json.Unmarshal(set, &all); err != nil {
		return nil, fmt.Errorf("JWKS: %w", err)
	}
	return all.Keys, nil
}

func encodeKeys(keys []jose.JSONWebKey) ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: append([]jose.JSONWebKey{}, keys...)})
}

// albKeyOf reads what a load balancer's key is published as.
func albKeyOf(kid string, text []byte) (*jose.JSONWebKey, error) {
	if !IsALBKeyID(kid) {
		return nil, errALBKeyID
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one public key in PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a public key (RFC 5280 4.1.2.7)")
	}
	k, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("not a key of ES256")
	}
	if _, err := algorithmOf(k); err != nil {
		return nil, err
	}
	return &jose.JSONWebKey{Key: k, KeyID: kid, Algorithm: string(algorithmOfALB), Use: "sig"}, nil
}
