package authz_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"signet.example/authz"
)

const issuerURL = "https://id.example"

// keys of the tests, made once: RSA keys are dear.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	e384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	return map[string]crypto.Signer{"rsa": r, "other": other, "ec": e, "ec384": e384, "ed": ed}
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func jwks(names ...string) []byte {
	var set jose.JSONWebKeySet
	for _, n := range names {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: keys()[n].Public(), KeyID: n, Use: "sig"})
	}
	b, err := json.Marshal(set)
	must(err)
	return b
}

func issuers() []authz.Issuer {
	return []authz.Issuer{
		{Name: "id", Issuer: issuerURL, Audiences: []string{"orders"}, JWKS: jwks("rsa", "ec", "ec384", "ed")},
		{Name: "second", Issuer: "https://second.example", Audiences: []string{"orders"}, JWKS: jwks("other")},
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

type claims map[string]any

func good() claims {
	return claims{"iss": issuerURL, "sub": "alice", "aud": "orders", "exp": noon.Add(time.Hour).Unix(), "iat": noon.Unix(), "scope": "write"}
}

func (c claims) with(name string, value any) claims {
	out := maps.Clone(c)
	if out[name] = value; value == nil {
		delete(out, name)
	}
	return out
}

func (c claims) json() string {
	b, err := json.Marshal(c)
	must(err)
	return string(b)
}

// sign signs exactly the header and payload that it is given.
func sign(key crypto.Signer, header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	var err error
	switch k := key.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		hashed := sum[:]
		if k.Curve == elliptic.P384() {
			wide := sha512.Sum384([]byte(input))
			hashed = wide[:]
		}
		r, s, e := ecdsa.Sign(rand.Reader, k, hashed)
		size := (k.Params().BitSize + 7) / 8
		sig, err = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), e
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	}
	must(err)
	return input + "." + b64(sig)
}

func mac(secret []byte, header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(input))
	return input + "." + b64(m.Sum(nil))
}

const rs256 = `{"alg":"RS256","kid":"rsa","typ":"JWT"}`

func withJWT(_ *authz.Options, c *authz.Config) { c.Issuers = issuers() }

func TestTokensOfEachAcceptedAlgorithmBecomeInputJWT(t *testing.T) {
	f := newFixture(t, withJWT)
	for name, tok := range map[string]string{
		"RS256":            sign(keys()["rsa"], rs256, good().json()),
		"ES256":            sign(keys()["ec"], `{"alg":"ES256","kid":"ec","typ":"at+jwt"}`, good().json()),
		"ES384":            sign(keys()["ec384"], `{"alg":"ES384","kid":"ec384"}`, good().json()),
		"EdDSA":            sign(keys()["ed"], `{"alg":"EdDSA","kid":"ed"}`, good().json()),
		"without kid":      sign(keys()["rsa"], `{"alg":"RS256"}`, good().json()),
		"list of audience": sign(keys()["rsa"], rs256, good().with("aud", []string{"x", "orders"}).json()),
		"fraction of time": sign(keys()["rsa"], rs256, good().with("exp", float64(noon.Unix())+100.5).json()),
		"within the skew":  sign(keys()["rsa"], rs256, good().with("iat", noon.Unix()-99).with("exp", noon.Unix()-59).json()),
	} {
		for range 2 { // the second from memory
			resp, r := f.ask(t, f.question("POST", "/x", "", "authorization: bEaReR "+tok))
			if !r.Allowed || answerHeaders(resp.GetOkResponse().GetHeaders())["x-user"] != "alice" {
				t.Errorf("%s: %s %+v", name, r.Message, r.Token)
			}
			if r.Token == nil || r.Token.Issuer != issuerURL || r.Token.Subject != "alice" || len(r.Token.KeyedHash) != 16 || r.Token.Error != "" {
				t.Errorf("%s: token %+v", name, r.Token)
			}
		}
	}
}

func TestAttackedTokensAreRefused(t *testing.T) {
	f := newFixture(t, withJWT)
	k := keys()
	valid := sign(k["rsa"], rs256, good().json())
	head, rest, _ := strings.Cut(valid, ".")
	body, sig, _ := strings.Cut(rest, ".")
	spki, err := x509.MarshalPKIXPublicKey(k["rsa"].Public())
	must(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	pkcs1 := x509.MarshalPKCS1PublicKey(k["rsa"].Public().(*rsa.PublicKey))
	jwk, err := json.Marshal(jose.JSONWebKey{Key: k["other"].Public()})
	must(err)
	header := func(extra string) string {
		return sign(k["rsa"], `{"alg":"RS256","kid":"rsa",`+extra+`}`, good().json())
	}
	claim := func(name string, value any) string { return sign(k["rsa"], rs256, good().with(name, value).json()) }
	payload := func(p string) string { return sign(k["rsa"], rs256, p) }
	exp := noon.Add(time.Hour).Unix()
	attacks := map[string]string{
		"expired":                       claim("exp", noon.Add(-61*time.Second).Unix()),
		"no exp":                        claim("exp", nil),
		"exp as text":                   claim("exp", fmt.Sprint(exp)),
		"exp beyond sense":              claim("exp", math.MaxInt64),
		"exp 1e308":                     claim("exp", 1e308),
		"exp 1e999":                     payload(`{"iss":"` + issuerURL + `","aud":"orders","exp":1e999}`),
		"exp negative":                  claim("exp", -1),
		"exp null":                      payload(`{"iss":"` + issuerURL + `","aud":"orders","exp":null}`),
		"exp twice":                     payload(fmt.Sprintf(`{"iss":%q,"aud":"orders","exp":%d,"exp":%d}`, issuerURL, exp, exp)),
		"sub twice, once escaped":       payload(fmt.Sprintf(`{"iss":%q,"aud":"orders","exp":%d,"sub":"a","s\u0075b":"b"}`, issuerURL, exp)),
		"a name twice inside a claim":   payload(fmt.Sprintf(`{"iss":%q,"aud":"orders","exp":%d,"realm":{"r":1,"r":2}}`, issuerURL, exp)),
		"not valid yet":                 claim("nbf", noon.Add(61*time.Second).Unix()),
		"issued in the future":          claim("iat", noon.Add(2*time.Minute).Unix()),
		"issued after it expires":       claim("iat", exp+1),
		"issued after it expired":       sign(k["rsa"], rs256, good().with("exp", noon.Add(-30*time.Second).Unix()).with("iat", noon.Add(-10*time.Second).Unix()).json()),
		"nbf as text":                   claim("nbf", "now"),
		"sub as a number":               claim("sub", 5),
		"another audience":              claim("aud", "billing"),
		"audience as a part":            claim("aud", "orders2"),
		"audience in another case":      claim("aud", "ORDERS"),
		"no audience":                   claim("aud", nil),
		"empty audience":                claim("aud", []string{}),
		"audience of mixed types":       claim("aud", []any{"orders", 5}),
		"audience as an object":         claim("aud", map[string]any{"orders": 1}),
		"another issuer":                claim("iss", "https://evil.example"),
		"no issuer":                     claim("iss", nil),
		"issuer as a list":              claim("iss", []string{issuerURL}),
		"another issuer's key":          sign(k["other"], `{"alg":"RS256","kid":"other"}`, good().json()),
		"another issuer's key, our kid": sign(k["other"], rs256, good().json()),
		"our key for the other issuer":  sign(k["rsa"], rs256, good().with("iss", "https://second.example").json()),
		"unknown kid":                   sign(k["rsa"], `{"alg":"RS256","kid":"../rsa"}`, good().json()),
		"kid of another key":            sign(k["rsa"], `{"alg":"RS256","kid":"ec"}`, good().json()),
		"kid of 1 KiB":                  sign(k["rsa"], `{"alg":"RS256","kid":"`+strings.Repeat("k", 1024)+`"}`, good().json()),
		"kid as a number":               sign(k["rsa"], `{"alg":"RS256","kid":1}`, good().json()),
		"empty kid":                     sign(k["rsa"], `{"alg":"RS256","kid":""}`, good().json()),
		"alg none":                      b64([]byte(`{"alg":"none"}`)) + "." + body + ".",
		"alg none with a signature":     b64([]byte(`{"alg":"none"}`)) + "." + body + "." + sig,
		"alg None":                      b64([]byte(`{"alg":"None"}`)) + "." + body + "." + sig,
		"alg nOnE":                      b64([]byte(`{"alg":"nOnE"}`)) + "." + body + "." + sig,
		"no alg":                        sign(k["rsa"], `{"kid":"rsa"}`, good().json()),
		"alg twice":                     sign(k["rsa"], `{"alg":"RS256","alg":"RS256","kid":"rsa"}`, good().json()),
		"HS256 by the key's PEM":        mac(public, `{"alg":"HS256","kid":"rsa"}`, good().json()),
		"HS256 by the key's DER":        mac(spki, `{"alg":"HS256","kid":"rsa"}`, good().json()),
		"HS256 by the key's PKCS #1":    mac(pkcs1, `{"alg":"HS256","kid":"rsa"}`, good().json()),
		"HS256 by the key's JWK":        mac(jwk, `{"alg":"HS256","kid":"rsa"}`, good().json()),
		"HS256 called RS256":            mac(public, rs256, good().json()),
		"RS384 in the header":           sign(k["rsa"], `{"alg":"RS384","kid":"rsa"}`, good().json()),
		"PS256 in the header":           sign(k["rsa"], `{"alg":"PS256","kid":"rsa"}`, good().json()),
		"ES256 with the RSA key's kid":  sign(k["ec"], `{"alg":"ES256","kid":"rsa"}`, good().json()),
		"ES256 by a P-384 key":          sign(k["ec384"], `{"alg":"ES256","kid":"ec"}`, good().json()),
		"ES384 by a P-256 key":          sign(k["ec"], `{"alg":"ES384","kid":"ec384"}`, good().json()),
		"ES256 with a P-384 key's kid":  sign(k["ec384"], `{"alg":"ES256","kid":"ec384"}`, good().json()),
		"crit":                          header(`"crit":["exp"],"exp":1`),
		"empty crit":                    header(`"crit":[]`),
		"b64 false":                     header(`"b64":false`),
		"jku of the attacker":           sign(k["other"], `{"alg":"RS256","kid":"rsa","jku":"https://evil.example/keys"}`, good().json()),
		"x5u of the attacker":           sign(k["other"], `{"alg":"RS256","kid":"rsa","x5u":"https://evil.example/cert"}`, good().json()),
		"jwk of the attacker and a kid": sign(k["other"], `{"alg":"RS256","kid":"rsa","jwk":`+string(jwk)+`}`, good().json()),
		"jwk of the attacker":           sign(k["other"], `{"alg":"RS256","jwk":`+string(jwk)+`}`, good().json()),
		"cty":                           header(`"cty":"JWT"`),
		"zip":                           header(`"zip":"DEF"`),
		"typ of something else":         header(`"typ":"logout+jwt"`),
		"typ as a list":                 header(`"typ":["JWT"]`),
		"another payload":               head + "." + b64([]byte(good().with("sub", "root").json())) + "." + sig,
		"no signature":                  head + "." + body + ".",
		"two parts":                     head + "." + body,
		"four parts":                    valid + ".",
		"JSON serialization":            `{"payload":"` + body + `","protected":"` + head + `","signature":"` + sig + `"}`,
		"padding":                       valid + "=",
		"unused bits in the signature":  head + "." + body + "." + flipUnused(sig),
		"standard base64":               head + "." + body + "." + strings.NewReplacer("-", "+", "_", "/").Replace(sig) + "+",
		"a line end":                    head + "." + body + ".\n" + sig,
		"payload that is a list":        payload(`[]`),
		"payload that is text":          payload(`alice`),
		"two payloads":                  payload(good().json() + good().json()),
		"payload that is not UTF-8":     payload(strings.Replace(good().json(), "alice", "al\xffice", 1)),
		"payload nested without end":    payload(fmt.Sprintf(`{"iss":%q,"aud":"orders","exp":%d,"x":%s%s}`, issuerURL, exp, strings.Repeat("[", 1000), strings.Repeat("]", 1000))),
		"header that is a list":         sign(k["rsa"], `["RS256"]`, good().json()),
		"nothing":                       "",
		"only dots":                     "..",
		"a megabyte of dots":            strings.Repeat(".", 1<<20),
		"over 8 KiB":                    claim("pad", strings.Repeat("x", 8<<10)),
		"spaces behind":                 valid + " ",
		"a second token behind":         valid + ", Bearer " + valid,
		"a token in quotes":             `"` + valid + `"`,
	}
	for name, tok := range attacks {
		t.Run(name, func(t *testing.T) {
			q := f.question("POST", "/x", "", "authorization: Bearer "+tok)
			if strings.Contains(tok, "\n") {
				q = f.question("POST", "/x", "", "authorization: Bearer "+strings.ReplaceAll(tok, "\n", " "))
			}
			resp, r := f.ask(t, q)
			d := resp.GetDeniedResponse()
			if r.Allowed || r.Cause != authz.CausePolicy {
				t.Fatalf("%+v", r)
			}
			if len(tok) < 1<<18 && (d.GetStatus().GetCode() != 401 || r.Token == nil || r.Token.Error == "" || answerHeaders(d.GetHeaders())["www-authenticate"] == "") {
				t.Errorf("status %v, token %+v", d.GetStatus(), r.Token)
			}
			if err := authz.TokenVerifier(issuers())(tok, noon); err == nil && !strings.Contains(name, "behind") {
				t.Error("accepted by the verifier")
			}
		})
	}
}

func TestATokenWithoutKidIsRefusedWhereTwoKeysCouldHaveSigned(t *testing.T) {
	tok := sign(keys()["rsa"], `{"alg":"RS256"}`, good().json())
	for want, names := range map[bool][]string{true: {"rsa", "ec"}, false: {"rsa", "other"}} {
		verify := authz.TokenVerifier([]authz.Issuer{{Name: "id", Issuer: issuerURL, Audiences: []string{"orders"}, JWKS: jwks(names...)}})
		if err := verify(tok, noon); (err == nil) != want {
			t.Errorf("%v: %v", names, err)
		}
	}
}

// flipUnused sets a bit of the last character that decodes to nothing.
func flipUnused(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[i^1])
}

func TestABearerTokenIsFoundOrRefusedButNeverMissed(t *testing.T) {
	tok := sign(keys()["rsa"], rs256, good().json())
	for name, tc := range map[string]struct {
		values           []string
		present, refused bool
	}{
		"none":               {nil, false, false},
		"basic":              {[]string{"Basic YTpi"}, false, false},
		"bearer":             {[]string{"Bearer " + tok}, true, false},
		"two spaces":         {[]string{"Bearer  " + tok}, true, false},
		"two headers":        {[]string{"Bearer " + tok, "Bearer " + tok}, true, true},
		"basic and bearer":   {[]string{"Basic YTpi", "Bearer " + tok}, true, true},
		"joined with commas": {[]string{"Basic YTpi, Bearer " + tok}, true, true},
		"tab":                {[]string{"Bearer\t" + tok}, true, true},
		"nothing behind":     {[]string{"Bearer"}, true, true},
		"a space before":     {[]string{" Bearer " + tok}, true, true},
		"another scheme":     {[]string{"Bearertoken"}, false, false},
	} {
		text, present, err := authz.Bearer(map[string][]string{"authorization": tc.values})
		if present != tc.present || (err != nil) != tc.refused || present && err == nil && text != tok {
			t.Errorf("%s: %v %v", name, present, err)
		}
	}
}

func TestWithoutIssuersThereIsNoInputJWT(t *testing.T) {
	f := newFixture(t)
	_, r := f.ask(t, f.question("POST", "/x", web, "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json())))
	if r.Allowed || r.Token != nil {
		t.Errorf("%+v", r)
	}
	if _, r = f.ask(t, f.question("GET", "/orders/1", web, "authorization: Bearer garbage")); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

func TestAnInvalidTokenDeniesEvenAHealthCheck(t *testing.T) {
	f := newFixture(t, withJWT)
	if _, r := f.ask(t, f.question("GET", "/health", web, "authorization: Bearer garbage")); r.Allowed {
		t.Errorf("%+v", r)
	}
}

func TestARememberedTokenExpiresAndGoesWithItsKey(t *testing.T) {
	now := noon
	f := newFixture(t, withJWT, func(o *authz.Options, _ *authz.Config) { o.Clock = func() time.Time { return now } })
	q := f.question("POST", "/x", "", "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json()))
	for _, tc := range []struct {
		at   time.Duration
		want bool
	}{{0, true}, {time.Hour + 59*time.Second, true}, {time.Hour + 60*time.Second, false}, {0, true}} {
		now = noon.Add(tc.at)
		if _, r := f.ask(t, q); r.Allowed != tc.want {
			t.Errorf("after %s: %+v", tc.at, r)
		}
	}
	f.Configure(f.conf)
	if f.Remembered() != 1 {
		t.Error("the same issuers forgot their tokens")
	}
	for name, change := range map[string]func(*authz.Issuer){
		"its key":      func(i *authz.Issuer) { i.JWKS = jwks("ec") },
		"its claim":    func(i *authz.Issuer) { i.Audiences, i.AudienceClaim = []string{"others"}, "scope" },
		"its audience": func(i *authz.Issuer) { i.Audiences = []string{"others"} },
		"its issuer":   func(i *authz.Issuer) { i.Issuer = "https://third.example" },
	} {
		f.Configure(f.conf)
		if _, r := f.ask(t, q); !r.Allowed {
			t.Fatalf("%+v", r)
		}
		c := f.conf
		c.Issuers = issuers()
		change(&c.Issuers[0])
		f.Configure(c)
		if _, r := f.ask(t, q); r.Allowed {
			t.Errorf("without %s: %+v", name, r)
		}
	}
}

func TestRememberedTokensAreBounded(t *testing.T) {
	for _, size := range []int{1, authz.GenerationBytes / 100} {
		if got := authz.RememberAfter(3*authz.GenerationTokens, size); got > 2*authz.GenerationTokens || got*size > 2*authz.GenerationBytes+2*size {
			t.Errorf("%d of size %d remembered", got, size)
		}
	}
}

// An issuer whose keys have not come yet: its tokens are refused, not passed over.
func TestATokenOfAnIssuerWithoutKeysIsRefused(t *testing.T) {
	f := newFixture(t, withJWT, func(_ *authz.Options, c *authz.Config) {
		for i := range c.Issuers {
			c.Issuers[i].JWKS = []byte(`{"keys":[]}`)
		}
	})
	_, r := f.ask(t, f.question("GET", "/orders/1", web, "authorization: Bearer "+sign(keys()["rsa"], rs256, good().json())))
	if r.Allowed || r.Token == nil || r.Token.Error != "none of its issuer's keys is here" {
		t.Errorf("%+v", r)
	}
}

// RFC 7515 4: what is not understood is ignored, and never used.
func TestHeaderParametersThatAreNotUnderstoodAreIgnored(t *testing.T) {
	f := newFixture(t, withJWT)
	other, err := json.Marshal(jose.JSONWebKey{Key: keys()["other"].Public()})
	must(err)
	for _, extra := range []string{
		`"x5t":"nOo3ZDrODXEK1jKWhXslHR_KXEg"`, `"x5t#S256":"AAAA"`, `"x5c":["MAA="]`, `"x5c":"no list"`, `"x5u":"https://evil.example/cert"`,
		`"jku":"https://evil.example/keys"`, `"jwk":` + string(other), `"jwk":5`, `"tty":"provider-token"`, `"ver":2`, `"nested":{"a":[1,null]}`, `"epk":{}`,
	} {
		for name, header := range map[string]string{"RS256": "rsa", "ES256": "ec", "EdDSA": "ed"} {
			tok := sign(keys()[header], `{"alg":"`+name+`","kid":"`+header+`","typ":"JWT",`+extra+`}`, good().json())
			if _, r := f.ask(t, f.question("POST", "/x", "", "authorization: Bearer "+tok)); !r.Allowed {
				t.Errorf("%s, %s: %s", name, extra, r.Message)
			}
		}
	}
}

func TestATokenWithoutAudienceIsJudgedByTheClaimThatItsIssuerHasForIt(t *testing.T) {
	f := newFixture(t, withJWT, func(_ *authz.Options, c *authz.Config) { c.Issuers[0].AudienceClaim = "client_id" })
	noAud := good().with("aud", nil)
	for name, tc := range map[string]struct {
		claims claims
		why    string
	}{
		"the claim":              {noAud.with("client_id", "orders"), ""},
		"a list of them":         {noAud.with("client_id", []string{"x", "orders"}), ""},
		"another's":              {noAud.with("client_id", "billing"), "its audience is another"},
		"neither":                {noAud, "it has no audience: neither aud nor the issuer's audienceClaim"},
		"a number":               {noAud.with("client_id", 5), "its audience is neither a text nor a list of texts"},
		"aud alone":              {good(), ""},
		"another aud, the claim": {good().with("aud", "billing").with("client_id", "orders"), "its audience is another"},
		"no aud in it":           {good().with("aud", []string{}).with("client_id", "orders"), "it has no audience (aud)"},
	} {
		_, r := f.ask(t, f.question("POST", "/x", "", "authorization: Bearer "+sign(keys()["rsa"], rs256, tc.claims.json())))
		if r.Allowed != (tc.why == "") || r.Token.Error != tc.why {
			t.Errorf("%s: %+v %q", name, r.Token, tc.why)
		}
	}
}

func TestARefusedTokenHasItsTrueReason(t *testing.T) {
	f := newFixture(t, withJWT)
	k := keys()
	header := func(h string) string { return sign(k["rsa"], h, good().json()) }
	claim := func(name string, v any) string { return sign(k["rsa"], rs256, good().with(name, v).json()) }
	for want, toks := range map[string][]string{
		"malformed: not three parts of base64url without padding": {"a.b", header(rs256) + "=", header(rs256) + ".x"},
		"too large": {claim("pad", strings.Repeat("x", 8<<10))},
		"its header is no JSON object, or has a name twice":                 {header(`[]`), header(`{"alg":"RS256","alg":"RS256"}`)},
		"its header has crit, b64, zip or cty, which change how it is read": {header(`{"alg":"RS256","kid":"rsa","crit":[]}`), header(`{"alg":"RS256","kid":"rsa","b64":true}`), header(`{"alg":"RS256","zip":"DEF"}`), header(`{"alg":"RS256","cty":"JWT"}`)},
		"its typ is not JWT or at+jwt":                                      {header(`{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}`), header(`{"alg":"RS256","typ":5}`)},
		"its kid is not a text of 1 to 256 bytes":                           {header(`{"alg":"RS256","kid":""}`), header(`{"alg":"RS256","kid":5}`)},
		"its algorithm is not RS256, ES256, ES384 or EdDSA":                 {header(`{"alg":"PS256","kid":"rsa"}`), header(`{"kid":"rsa"}`)},
		"its claims are no JSON object, or have a name twice":               {sign(k["rsa"], rs256, `[]`)},
		"it has no issuer (iss)":                                            {claim("iss", nil), claim("iss", 5)},
		"no JWTIssuer has its issuer":                                       {claim("iss", "https://evil.example")},
		"its issuer has no key of its kid":                                  {header(`{"alg":"RS256","kid":"gone"}`)},
		"its issuer's key of its kid is for another algorithm":              {header(`{"alg":"RS256","kid":"ec"}`)},
		"signature is wrong":                                                {sign(k["other"], rs256, good().json())},
		"its sub is not a text":                                             {claim("sub", 5)},
		"it has no expiry (exp)":                                            {claim("exp", nil)},
		"its exp, nbf or iat is not a time":                                 {claim("exp", "x"), claim("nbf", "x"), claim("iat", "x"), claim("exp", 1e18)},
		"it was issued (iat) after it expires (exp)":                        {claim("iat", noon.Add(2*time.Hour).Unix())},
		"it has no audience (aud)":                                          {claim("aud", nil)},
		"its audience is neither a text nor a list of texts":                {claim("aud", 5), claim("aud", []any{"orders", 5})},
		"its audience is another":                                           {claim("aud", "billing")},
		"expired":                                                           {sign(k["rsa"], rs256, good().with("iat", nil).with("exp", noon.Add(-time.Hour).Unix()).json())},
		"not valid yet":                                                     {claim("nbf", noon.Add(30*time.Minute).Unix())},
	} {
		for _, tok := range toks {
			_, r := f.ask(t, f.question("POST", "/x", "", "authorization: Bearer "+tok))
			if r.Token == nil || r.Token.Error != want || r.Message != "the bearer token is refused: "+r.Token.Error {
				t.Errorf("%.80q: %+v, want %q", tok, r.Token, want)
			}
		}
	}
}
