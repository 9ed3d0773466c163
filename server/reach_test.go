package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/server"
)

func TestAnotherAuthorityIsNotTakenForTheSignersOwn(t *testing.T) {
	dir, err := made()
	if err != nil {
		t.Fatal(err)
	}
	set, err := os.ReadFile(filepath.Join(dir, "ca", "root-set"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, "ca", "issuing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	issuing, _ := pem.Decode(bundle)
	says := func(set []byte) *api.AuthorityResponse {
		return &api.AuthorityResponse{TrustDomain: trustDomain, SignedRootSet: set, Issuing: issuing.Bytes}
	}
	// The same roots, and somebody else vouches for them.
	another, err := identity.ParseRootSet(set, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	another.Key = nil
	signed, err := another.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	errs := server.FollowAuthority(t.Context(), says(set), says(signed), says(set))
	if errs[0] != nil || !errors.Is(errs[1], identity.ErrPin) || errs[2] != nil {
		t.Errorf("the first, another and the first again: %v", errs)
	}
}

func TestCheckWarnsOfASignerOfTheServersOwnUser(t *testing.T) {
	awaitFinding(t, newRig(t), "SIG018", "the server's own user")
}
