package jwt_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"signet.example/authz/jwt"
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

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantField checks that the first mistake in err is at path.
func wantField(t *testing.T, what, path string, err error) {
	t.Helper()
	if all := identity.FieldErrors(err); len(all) == 0 || all[0].Path != path || all[0].Msg == "" {
		t.Errorf("%s: got %v, want it at %s", what, err, path)
	}
}

func set(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func with(name string, value any) func(map[string]any) {
	return func(m map[string]any) { m[name] = value }
}

func TestJWTIssuerIsBuiltFromItsSpec(t *testing.T) {
	is, err := jwt.IssuerSpec{Issuer: "https://idp.example", Audiences: []string{"shop"}, JWKSURL: "https://idp.example/keys", Refresh: "10s"}.Build("idp")
	if err != nil || is.Name != "idp" || is.JWKSURL != "https://idp.example/keys" || is.Refresh != 10*time.Second || is.JWKS != nil {
		t.Errorf("got %+v, %v", is, err)
	}
	for _, own := range []string{"http://127.0.0.1:8080/keys", "http://[::1]/keys", "http://localhost/keys"} {
		if _, err := (jwt.IssuerSpec{Issuer: "dev", Audiences: []string{"shop"}, JWKSURL: own}).Build("dev"); err != nil {
			t.Errorf("%s: %v", own, err)
		}
	}
	inline := set(jwk(t, newKey(t).Public(), nil))
	is, err = jwt.IssuerSpec{Issuer: "dev", Audiences: []string{"shop"}, JWKS: inline}.Build("dev")
	if err != nil || string(is.JWKS) != inline || is.Refresh != 0 {
		t.Errorf("got %+v, %v", is, err)
	}
}

func TestJWTIssuerThatMustNotBeIsRefusedWithItsField(t *testing.T) {
	good := jwt.IssuerSpec{Issuer: "https://idp.example", Audiences: []string{"shop"}, JWKSURL: "https://idp.example/keys"}
	type change = func(*jwt.IssuerSpec)
	keys := set(jwk(t, newKey(t).Public(), nil))
	for path, changes := range map[string][]change{
		"spec.issuer":       {func(s *jwt.IssuerSpec) { s.Issuer = "" }, func(s *jwt.IssuerSpec) { s.Issuer = "a\nb" }},
		"spec.audiences":    {func(s *jwt.IssuerSpec) { s.Audiences = nil }, func(s *jwt.IssuerSpec) { s.Audiences = make([]string, 33) }},
		"spec.audiences[1]": {func(s *jwt.IssuerSpec) { s.Audiences = []string{"a", ""} }, func(s *jwt.IssuerSpec) { s.Audiences = []string{"a", "a"} }},
		"spec.jwks":         {func(s *jwt.IssuerSpec) { s.JWKS = keys }, func(s *jwt.IssuerSpec) { s.JWKSURL, s.JWKS = "", "{}" }},
		"spec.refresh": {
			func(s *jwt.IssuerSpec) { s.Refresh = "1ms" },
			func(s *jwt.IssuerSpec) { s.JWKSURL, s.JWKS, s.Refresh = "", keys, "1m" },
		},
		"spec.jwksURL": {
			func(s *jwt.IssuerSpec) { s.JWKSURL = "" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "file:///etc/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "unix:/run/x" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https:///keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https:idp.example" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "idp.example/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https://u:hunter2@idp.example/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https://idp.example/keys#x" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https://idp.example/\r\nX: y" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "https://%zz/" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "http://idp.example/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "http://10.0.0.7/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "http://169.254.169.254/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "http://0.0.0.0/keys" },
			func(s *jwt.IssuerSpec) { s.JWKSURL = "http://127.0.0.1.idp.example/keys" },
		},
	} {
		for i, c := range changes {
			s := good
			c(&s)
			_, err := s.Build("idp")
			err = errors.Join(err, s.Check())
			wantField(t, path+" "+string(rune('a'+i)), path, err)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is in the error: %v", err)
			}
		}
	}
}

func TestAllFaultsOfAnIssuerAreToldAtOnce(t *testing.T) {
	_, err := jwt.IssuerSpec{AudienceClaim: "sub"}.Build("login")
	var got []string
	for _, f := range identity.FieldErrors(err) {
		got = append(got, f.Path)
	}
	if d := cmp.Diff([]string{"spec.issuer", "spec.audiences", "spec.audienceClaim", "spec.jwksURL"}, got); d != "" {
		t.Error(d)
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
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, good := range map[string]string{
		"P-256":             jwk(t, ec.Public(), nil),
		"P-256 with alg":    jwk(t, ec.Public(), with("alg", "ES256")),
		"P-384":             jwk(t, p384.Public(), with("alg", "ES384")),
		"RSA":               jwk(t, rsaKey.Public(), with("use", "sig")),
		"Ed25519":           jwk(t, edPub, with("key_ops", []string{"verify"})),
		"an unknown member": jwk(t, ec.Public(), with("x-vendor", 1)),
	} {
		if err := jwt.CheckKeys([]byte(set(good))); err != nil {
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
		"ES256 of P-384":   jwk(t, p384.Public(), with("alg", "ES256")),
		"P-521":            jwk(t, p521.Public(), nil),
		"off the curve":    jwk(t, ec.Public(), with("y", "AAAA")),
		"RSA 512":          jwk(t, rsaKey.Public(), with("n", strings.Repeat("A", 85)+"B")),
		"not an object":    `7`,
	}
	for what, k := range bad {
		if err := jwt.CheckKeys([]byte(set(k))); err == nil {
			t.Errorf("%s: taken", what)
		}
		if _, left, err := jwt.UsableKeys([]byte(set(k))); err == nil || len(left) != 1 {
			t.Errorf("%s: usable", what)
		}
		kept, left, err := jwt.UsableKeys([]byte(set(k, ok)))
		if err != nil || len(left) != 1 || string(kept) != set(ok) {
			t.Errorf("%s beside a good one: kept %s, left %v, %v", what, kept, left, err)
		}
	}
	for what, s := range map[string]string{"empty": `{"keys":[]}`, "no keys": `{}`, "no JSON": `x`, "an array": `[]`, "kid twice": set(ok, ok), "65 keys": set(strings.Split(strings.Repeat(ok+"|", 65), "|")[:65]...), "2 MiB": strings.Repeat(" ", 2<<20)} {
		if err := jwt.CheckKeys([]byte(s)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func TestKeysThatMustNotVerifyAreLeftOut(t *testing.T) {
	key := newKey(t)
	other, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // too small on purpose
	must(t, err)
	ec := jwk(t, key.Public(), with("use", "sig"))
	private, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "p"})
	must(t, err)
	smallKey, err := json.Marshal(jose.JSONWebKey{Key: small.Public()})
	must(t, err)
	p521, err := json.Marshal(jose.JSONWebKey{Key: other.Public()})
	must(t, err)
	for name, text := range map[string]string{
		"symmetric":        `{"kty":"oct","k":"AAAA"}`,
		"private":          string(private),
		"RSA of 1024":      string(smallKey),
		"P-521":            string(p521),
		"for encryption":   strings.Replace(ec, `"use":"sig"`, `"use":"enc"`, 1),
		"only for wrapped": strings.Replace(ec, `"use":"sig"`, `"key_ops":["wrapKey"]`, 1),
		"of another alg":   strings.Replace(ec, `"use":"sig"`, `"alg":"ES384"`, 1),
		"a member twice":   strings.Replace(ec, `"use":"sig"`, `"use":"enc","use":"sig"`, 1),
		"unknown kind":     `{"kty":"X"}`,
		"nothing":          `null`,
	} {
		if alg, err := jwt.KeyAlgorithm([]byte(text)); err == nil {
			t.Errorf("%s: used for %s", name, alg)
		}
	}
	if alg, err := jwt.KeyAlgorithm([]byte(strings.Replace(ec, `"use":"sig"`, `"key_ops":["verify"],"alg":"ES256"`, 1))); err != nil || alg != "ES256" {
		t.Errorf("%s %v", alg, err)
	}
}

func FuzzCheckKeys(f *testing.F) {
	f.Add([]byte(set(jwk(f, newKey(f).Public(), nil))))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if jwt.CheckKeys(raw) != nil {
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
