package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/server"
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

// RFC 7517 5: most providers publish keys for encryption beside those for signatures.
func TestKeysOfASetThatCannotBeUsedLeaveTheOthers(t *testing.T) {
	set := strings.Replace(fmt.Sprintf(jwksFormat, "x"), "[", `[{"kty":"oct","k":"AAAA","kid":"unusable"},`, 1)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(set)) }))
	defer idp.Close()
	got, err := server.FetchJWKS(t.Context(), idp.URL)
	if err != nil || !strings.Contains(string(got), `"x"`) || strings.Contains(string(got), "unusable") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFetchingKeysGoesWhereTheOperatorSaidAndNowhereElse(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, jwksFormat, "x") }))
	defer inside.Close()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, inside.URL, http.StatusFound)
	}))
	defer moved.Close()
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat(" ", 2<<20)))
	}))
	defer huge.Close()
	if _, err := server.FetchJWKS(t.Context(), inside.URL); err != nil {
		t.Errorf("a loopback address that was written out: %v", err)
	}
	port := inside.URL[strings.LastIndexByte(inside.URL, ':'):]
	for name, url := range map[string]string{
		"a redirect to another host":        moved.URL,
		"more than a megabyte":              huge.URL,
		"a file":                            "file:///etc/passwd",
		"a Unix socket":                     "unix:///run/x.sock",
		"the metadata service":              "http://169.254.169.254/latest",
		"the unspecified address":           "http://0.0.0.0" + port,
		"an address that no literal names":  "http://2130706433" + port,
		"a literal that maps to link-local": "http://[::ffff:169.254.169.254]/",
		"a path that answers with an error": inside.URL[:len(inside.URL)-1] + "0/none",
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := server.FetchJWKS(t.Context(), url); err == nil {
				t.Errorf("%s answered %d bytes", url, len(b))
			}
		})
	}
}

func TestAnIssuersRedirectStaysWithItsHostAndScheme(t *testing.T) {
	const from = "https://idp.example/keys"
	for to, good := range map[string]bool{
		"https://idp.example/keys/2": true, "http://idp.example/keys": false,
		"https://idp.example:8443/keys": false, "https://other.example/keys": false,
	} {
		a, err := url.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.FollowsRedirect(a, b); (err == nil) != good {
			t.Errorf("%s: %v", to, err)
		}
	}
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

func TestAnIssuersNameLeadsToNoMetadataService(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "169.254.169.254": true, "fe80::1": true, "0.0.0.0": true, "::": true, "224.0.0.1": true,
		"100.100.100.200": true, "100.64.0.1": true, "192.0.0.192": true, "168.63.129.16": true, "255.255.255.255": true,
		"fd00:ec2::254": true, "fd20:ce::254": true, "fc00::1": true,
		"64:ff9b::a9fe:a9fe": true, "64:ff9b:1::a9fe:a9fe": true, "2002:a9fe:a9fe::1": true, "::169.254.169.254": true, "::ffff:169.254.169.254": true,
		"64:ff9b::6440:1": true,
		"192.0.2.1":       false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "64:ff9b::c000:201": false, "2001:db8::1": false, "2600::1": false,
	} {
		if got := server.Inside(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}
