package server_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/attestation/jointoken"
)

func TestATokenIsGoodForTenMinutesUnlessTheOperatorSaysOtherwise(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	for name, c := range map[string]struct {
		group string
		ttl   *durationpb.Duration
		lasts time.Duration
		want  codes.Code
	}{
		"nothing said":    {"front", nil, 10 * time.Minute, codes.OK},
		"an hour":         {"front", durationpb.New(time.Hour), time.Hour, codes.OK},
		"a day":           {"front", durationpb.New(24 * time.Hour), 24 * time.Hour, codes.OK},
		"longer":          {"front", durationpb.New(24*time.Hour + 1), 0, codes.InvalidArgument},
		"no time":         {"front", durationpb.New(0), 0, codes.InvalidArgument},
		"the past":        {"front", durationpb.New(-time.Hour), 0, codes.InvalidArgument},
		"a group of none": {"nobodys", nil, 0, codes.NotFound},
	} {
		begun := time.Now()
		resp, err := r.admin.CreateToken(t.Context(), &api.CreateTokenRequest{Group: c.group, Ttl: c.ttl})
		wantCode(t, err, c.want)
		if lasts := resp.GetExpires().AsTime().Sub(begun); err == nil && (lasts < c.lasts || lasts > c.lasts+10*time.Second) {
			t.Errorf("%s: good for %s", name, lasts)
		}
	}
}

func TestATokenOfAGroupThatWasDeletedIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: gone}\nspec: {}\n")
	token := r.token("gone")
	if _, err := r.admin.Delete(t.Context(), &api.DeleteRequest{Kind: "NodeGroup", Name: "gone"}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, newHost(r).attest(token), codes.PermissionDenied, "deleted")
}

func TestTheStoreHoldsNoTokenAndNoKey(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h, unused := r.join("front"), r.token("front")
	if _, err := h.issue("job", "binding/web"); err != nil {
		t.Fatal(err)
	}
	token, err := jointoken.Parse(unused)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "store.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	found := false
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(content, token.Hash())
		for what, secret := range map[string][]byte{
			"a token": []byte(token.SecretText()), "a token's bytes": token.Secret[:], "a private key": []byte("PRIVATE KEY"),
		} {
			if bytes.Contains(content, secret) {
				t.Errorf("%s has %s", filepath.Base(file), what)
			}
		}
	}
	if !found {
		t.Error("the token's hash is not there: the test sees nothing")
	}
}
