package identity_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"signet.example/identity"
)

func jwk(t testing.TB, key any, change func(map[string]any)) string {
	t.Helper()
	raw, err := (&jose.JSONWebKey{Key: key, KeyID: "k1"}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		return string(raw)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	raw, err = json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func set(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func with(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

func TestJWTIssuerIsBuiltFromItsSpec(t *testing.T) {
	is, err := identity.JWTIssuerSpec{Issuer: "https://idp.example", Audiences: []string{"shop"}, JWKSURL: "https://idp.example/keys", Refresh: "10s"}.Build("idp", td)
	if err != nil || is.Name != "idp" || is.JWKSURL != "https://idp.example/keys" || is.Refresh != 10*time.Second || is.JWKS != nil {
		t.Errorf("got %+v, %v", is, err)
	}
	for _, own := range []string{"http://127.0.0.1:8080/keys", "http://[::1]/keys", "http://localhost/keys"} {
		if _, err := (identity.JWTIssuerSpec{Issuer: "dev", Audiences: []string{"shop"}, JWKSURL: own}).Build("dev", td); err != nil {
			t.Errorf("%s: %v", own, err)
		}
	}
	inline := set(jwk(t, newKey(t).Public(), nil))
	is, err = identity.JWTIssuerSpec{Issuer: "dev", Audiences: []string{"shop"}, JWKS: inline}.Build("dev", td)
	if err != nil || string(is.JWKS) != inline || is.Refresh != 0 {
		t.Errorf("got %+v, %v", is, err)
	}
}

func TestJWTIssuerThatMustNotBeIsRefusedWithItsField(t *testing.T) {
	good := identity.JWTIssuerSpec{Issuer: "https://idp.example", Audiences: []string{"shop"}, JWKSURL: "https://idp.example/keys"}
	type change = func(*identity.JWTIssuerSpec)
	keys := set(jwk(t, newKey(t).Public(), nil))
	for path, changes := range map[string][]change{
		"spec.issuer":       {func(s *identity.JWTIssuerSpec) { s.Issuer = "" }, func(s *identity.JWTIssuerSpec) { s.Issuer = "a\nb" }},
		"spec.audiences":    {func(s *identity.JWTIssuerSpec) { s.Audiences = nil }, func(s *identity.JWTIssuerSpec) { s.Audiences = make([]string, 33) }},
		"spec.audiences[1]": {func(s *identity.JWTIssuerSpec) { s.Audiences = []string{"a", ""} }, func(s *identity.JWTIssuerSpec) { s.Audiences = []string{"a", "a"} }},
		"spec.jwks":         {func(s *identity.JWTIssuerSpec) { s.JWKS = keys }, func(s *identity.JWTIssuerSpec) { s.JWKSURL, s.JWKS = "", "{}" }},
		"spec.refresh": {
			func(s *identity.JWTIssuerSpec) { s.Refresh = "1ms" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL, s.JWKS, s.Refresh = "", keys, "1m" },
		},
		"spec.jwksURL": {
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "file:///etc/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "unix:/run/x" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https:///keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https:idp.example" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "idp.example/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https://u:hunter2@idp.example/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https://idp.example/keys#x" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https://idp.example/\r\nX: y" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "https://%zz/" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "http://idp.example/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "http://10.0.0.7/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "http://169.254.169.254/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "http://0.0.0.0/keys" },
			func(s *identity.JWTIssuerSpec) { s.JWKSURL = "http://127.0.0.1.idp.example/keys" },
		},
	} {
		for i, c := range changes {
			s := good
			c(&s)
			_, err := s.Build("idp", td)
			wantField(t, path+" "+string(rune('a'+i)), path, err)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in the error: %v", err)
			}
		}
	}
}

func TestKeySetIsTakenOnlyIfEachKeyCanBeUsed(t *testing.T) {
	ec := newKey(t)
	edPub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, good := range map[string]string{
		"P-256":             jwk(t, ec.Public(), nil),
		"P-256 with alg":    jwk(t, ec.Public(), with("alg", "ES256")),
		"RSA":               jwk(t, rsaKey.Public(), with("use", "sig")),
		"Ed25519":           jwk(t, edPub, with("key_ops", []string{"verify"})),
		"an unknown member": jwk(t, ec.Public(), with("x-vendor", 1)),
	} {
		if err := identity.CheckJWKS([]byte(set(good))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	ok := jwk(t, ec.Public(), nil)
	bad := map[string]string{
		"oct":              `{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		"oct in disguise":  `{"kty":"oct","Kty":"EC","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		"a private key":    jwk(t, ec, nil),
		"for encryption":   jwk(t, ec.Public(), with("use", "enc")),
		"for wrapping":     jwk(t, ec.Public(), with("key_ops", []string{"wrapKey"})),
		"alg of HMAC":      jwk(t, rsaKey.Public(), with("alg", "HS256")),
		"alg none":         jwk(t, ec.Public(), with("alg", "none")),
		"alg of RSA":       jwk(t, ec.Public(), with("alg", "RS256")),
		"alg not accepted": jwk(t, rsaKey.Public(), with("alg", "PS512")),
		"P-384":            jwk(t, p384.Public(), nil),
		"off the curve":    jwk(t, ec.Public(), with("y", "AAAA")),
		"RSA 512":          jwk(t, rsaKey.Public(), with("n", strings.Repeat("A", 85)+"B")),
		"not an object":    `7`,
	}
	for what, k := range bad {
		if err := identity.CheckJWKS([]byte(set(k))); err == nil {
			t.Errorf("%s: taken", what)
		}
		if _, left, err := identity.UsableJWKS([]byte(set(k))); err == nil || len(left) != 1 {
			t.Errorf("%s: usable", what)
		}
		kept, left, err := identity.UsableJWKS([]byte(set(k, ok)))
		if err != nil || len(left) != 1 || string(kept) != set(ok) {
			t.Errorf("%s beside a good one: kept %s, left %v, %v", what, kept, left, err)
		}
	}
	for what, s := range map[string]string{"empty": `{"keys":[]}`, "no keys": `{}`, "no JSON": `x`, "an array": `[]`, "kid twice": set(ok, ok), "65 keys": set(strings.Split(strings.Repeat(ok+"|", 65), "|")[:65]...), "2 MiB": strings.Repeat(" ", 2<<20)} {
		if err := identity.CheckJWKS([]byte(s)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzCheckJWKS(f *testing.F) {
	f.Add([]byte(set(jwk(f, newKey(f).Public(), nil))))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if identity.CheckJWKS(raw) != nil {
			return
		}
		var ks jose.JSONWebKeySet
		if err := json.Unmarshal(raw, &ks); err != nil {
			t.Fatalf("taken, and go-jose cannot read it: %v", err)
		}
		for _, k := range ks.Keys {
			if !k.Valid() || !k.IsPublic() {
				t.Errorf("taken: %v", k.KeyID)
			}
		}
	})
}
