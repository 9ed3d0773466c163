package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
)

const jwksFormat = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"%s","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

func issuer(url string) string {
	return "apiVersion: signet.example/v1alpha1\nkind: JWTIssuer\nmetadata: {name: users}\nspec: {issuer: \"https://users.example\", audiences: [shop], jwksURL: \"" + url + "\", refresh: 1s}\n"
}

func TestIssuerKeysAreFetchedPushedKeptAndRemembered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	var body atomic.Value
	body.Store(fmt.Sprintf(jwksFormat, "one"))
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(body.Load().(string)))
	}))
	t.Cleanup(idp.Close)
	h := r.join("front")
	own := h.followOwn()
	own.await("no issuer", func(s *ads.Set, _ *api.View) bool { return len(s.Type(ads.JWTIssuerType)) == 0 })
	r.apply(issuer(idp.URL))
	has := func(kid string) func(*ads.Set, *api.View) bool {
		return func(s *ads.Set, _ *api.View) bool {
			res := s.Get(ads.JWTIssuerType, "users")
			is := &api.JWTIssuer{}
			return res != nil && proto.Unmarshal(res.Body, is) == nil && strings.Contains(string(is.GetJwks()), kid) && is.GetIssuer() == "https://users.example"
		}
	}
	own.await("the keys", has("one"))
	body.Store(fmt.Sprintf(jwksFormat, "two"))
	own.await("the new keys", has("two"))
	body.Store("<html>")
	awaitFinding(t, r, "SIG014", "GET "+idp.URL)
	own.await("the last good keys", has("two"))
	idp.Close()

	r.halt()
	r.start()
	if err := h.attest(""); err != nil {
		t.Fatal(err)
	}
	h.followOwn().await("the keys of before the restart", has("two"))
}

// Left out, it would be as if nobody issued tokens: they would not be verified,
// and rules that deny by a claim would not hold.
func TestAnIssuerWhoseKeysWereNeverThereIsServedWithoutKeys(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	idp := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(idp.Close)
	r.apply(issuer(idp.URL))
	awaitFinding(t, r, "SIG014", "GET "+idp.URL)
	r.join("front").followOwn().await("the issuer", func(s *ads.Set, _ *api.View) bool {
		res := s.Get(ads.JWTIssuerType, "users")
		is := &api.JWTIssuer{}
		return res != nil && proto.Unmarshal(res.Body, is) == nil && string(is.GetJwks()) == `{"keys":[]}` && len(is.GetAudiences()) == 1
	})
}

func TestWhatAKeySetLosesIsToldByCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	key := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf(jwksFormat, "one"), `{"keys":[`), `]}`)
	var body atomic.Value
	body.Store(`{"keys":[` + key + `,` + strings.Replace(key, `"use":"sig"`, `"use":"enc"`, 1) + `]}`)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body.Load().(string))) }))
	t.Cleanup(idp.Close)
	r.apply(issuer(idp.URL))
	if f := awaitFinding(t, r, "SIG034", "not for signatures"); f.GetSeverity() != api.Finding_INFO {
		t.Errorf("a key for encryption is no loss: %v", f)
	}
	body.Store(`{"keys":[` + key + `,` + key + `]}`)
	if f := awaitFinding(t, r, "SIG034", "keys[1]: a second EdDSA key of kid"); f.GetSeverity() != api.Finding_WARNING {
		t.Errorf("%v", f)
	}
	body.Store(fmt.Sprintf(jwksFormat, "one"))
	eventually(t, "nothing is lost", func() bool { return len(findings(t, r, "SIG034")) == 0 })
}

func TestAnAudienceThatIsAPatternIsRefusedByName(t *testing.T) {
	r := newRig(t)
	for _, audiences := range []string{`["*"]`, `["shop", "https://*.example"]`} {
		_, err := r.tryApply(strings.Replace(issuer("https://users.example/keys"), "[shop]", audiences, 1))
		if err == nil || !strings.Contains(err.Error(), "spec.audiences[") || !strings.Contains(err.Error(), "audienceClaim") {
			t.Errorf("%s: %v", audiences, err)
		}
	}
	if _, err := r.tryApply(strings.Replace(issuer("https://users.example/keys"), "jwksURL:", "audienceClaim: sub, jwksURL:", 1)); err == nil || !strings.Contains(err.Error(), "spec.audienceClaim") {
		t.Errorf("sub as audience: %v", err)
	}
	r.apply(registry + "---\n" + strings.Replace(issuer("https://users.example/keys"), "jwksURL:", "audienceClaim: client_id, jwksURL:", 1))
	r.join("front").followOwn().await("the claim", func(s *ads.Set, _ *api.View) bool {
		res := s.Get(ads.JWTIssuerType, "users")
		is := &api.JWTIssuer{}
		return res != nil && proto.Unmarshal(res.Body, is) == nil && is.GetAudienceClaim() == "client_id"
	})
}
