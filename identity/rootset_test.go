package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"signet.example/identity"
)

func signedSet(t testing.TB) (identity.RootSet, []byte, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	rs := identity.RootSet{TrustDomain: td, Number: 7, Roots: []*x509.Certificate{newRoot(t, nil).cert, newRoot(t, nil).cert}}
	doc, err := rs.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	rs.Key = key.Public()
	return rs, doc, key
}

func TestRootSetIsReadBackByItsPin(t *testing.T) {
	rs, doc, _ := signedSet(t)
	for _, pin := range [][]byte{rs.Pin(), nil} {
		got, err := identity.ParseRootSet(doc, pin)
		if err != nil {
			t.Fatal(err)
		}
		if got.TrustDomain != td || got.Number != 7 || len(got.Roots) != 2 || !got.Roots[0].Equal(rs.Roots[0]) || !got.Roots[1].Equal(rs.Roots[1]) || !bytes.Equal(got.Pin(), rs.Pin()) {
			t.Errorf("got %+v", got)
		}
		if !got.Pool().Equal(identity.PoolOf(rs.Roots...)) {
			t.Error("another pool")
		}
	}
}

func TestRootSetOfAnotherKeyIsRefused(t *testing.T) {
	rs, _, _ := signedSet(t)
	rs.Key = nil
	doc, err := rs.Sign(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, pinned := signedSet(t)
	want := identity.RootSet{Key: pinned.Public()}.Pin()
	for _, pin := range [][]byte{want, {}, want[:16], make([]byte, 32)} {
		if _, err := identity.ParseRootSet(doc, pin); !errors.Is(err, identity.ErrPin) {
			t.Errorf("pin of %d bytes: %v", len(pin), err)
		}
	}
}

func TestNoBitOfARootSetCanBeChanged(t *testing.T) {
	rs, doc, _ := signedSet(t)
	for i := range doc {
		for _, bit := range []byte{0x01, 0x20} {
			changed := bytes.Clone(doc)
			changed[i] ^= bit
			if got, err := identity.ParseRootSet(changed, rs.Pin()); err == nil {
				t.Fatalf("byte %d of %d: read as %+v", i, len(doc), got)
			}
		}
	}
	for _, other := range []string{"", string(doc) + "\n", " " + string(doc), string(doc) + ".", string(doc) + "=", strings.Repeat("a", 300<<10)} {
		if _, err := identity.ParseRootSet([]byte(other), rs.Pin()); err == nil {
			t.Errorf("%d bytes were taken", len(other))
		}
	}
}

// The payload's form is part of the promise: whoever holds the key still
// cannot make two texts of one meaning.
func TestSignedPayloadThatIsNotCanonicalIsRefused(t *testing.T) {
	rs, doc, key := signedSet(t)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(string(doc), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	spkiField := `"key":"`
	for what, changed := range map[string]string{
		"space":           strings.Replace(string(payload), ",", ", ", 1),
		"unknown field":   strings.Replace(string(payload), "{", `{"x":1,`, 1),
		"repeated field":  strings.Replace(string(payload), `"number":7`, `"number":6,"number":7`, 1),
		"capital field":   strings.Replace(string(payload), `"number"`, `"Number"`, 1),
		"two keys":        strings.Replace(string(payload), spkiField, `"key":"",`+spkiField, 1),
		"number 0":        strings.Replace(string(payload), `"number":7`, `"number":0`, 1),
		"number 7.0":      strings.Replace(string(payload), `"number":7`, `"number":7.0`, 1),
		"no roots":        string(payload[:bytes.Index(payload, []byte(`"roots":[`))]) + `"roots":[],` + string(payload[bytes.Index(payload, []byte(spkiField)):]),
		"another domain":  strings.Replace(string(payload), "prod.example", "prod..example", 1),
		"trailing object": string(payload) + "{}",
		"null":            "null",
	} {
		if _, err := identity.ParseRootSet(signPayload(t, key, changed), nil); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := identity.ParseRootSet(signPayload(t, key, string(payload)), rs.Pin()); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// signPayload makes a document as Sign does, of any payload.
func signPayload(t *testing.T, key *ecdsa.PrivateKey, payload string) []byte {
	t.Helper()
	signed := "signet-root-set-v1." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	digest := sha256.Sum256([]byte(signed))
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return []byte(signed + "." + base64.RawURLEncoding.EncodeToString(sig))
}

func TestRootSetThatMustNotBeIsNotSigned(t *testing.T) {
	good, _, key := signedSet(t)
	good.Key = nil
	root := newRoot(t, nil)
	for what, change := range map[string]func(*identity.RootSet){
		"no trust domain":      func(rs *identity.RootSet) { rs.TrustDomain = identity.RootSet{}.TrustDomain },
		"number 0":             func(rs *identity.RootSet) { rs.Number = 0 },
		"no roots":             func(rs *identity.RootSet) { rs.Roots = nil },
		"a root twice":         func(rs *identity.RootSet) { rs.Roots = []*x509.Certificate{root.cert, root.cert} },
		"a leaf":               func(rs *identity.RootSet) { rs.Roots = []*x509.Certificate{root.leaf(t, nil)} },
		"an intermediate":      func(rs *identity.RootSet) { rs.Roots = []*x509.Certificate{root.intermediate(t, nil).cert} },
		"another domain's":     func(rs *identity.RootSet) { rs.Roots = []*x509.Certificate{foreignRoot(t)} },
		"nil":                  func(rs *identity.RootSet) { rs.Roots = []*x509.Certificate{nil} },
		"Key of somebody else": func(rs *identity.RootSet) { rs.Key = newKey(t).Public() },
		"17 roots": func(rs *identity.RootSet) {
			for range 16 {
				rs.Roots = append(rs.Roots, newRoot(t, nil).cert)
			}
		},
	} {
		rs := good
		change(&rs)
		if _, err := rs.Sign(key); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.Sign(ed); err == nil {
		t.Error("signed by Ed25519")
	}
	if _, err := good.Sign(p384); err == nil {
		t.Error("signed by P-384")
	}
}

func foreignRoot(t *testing.T) *x509.Certificate {
	t.Helper()
	return newRoot(t, func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL(t, "spiffe://other.example")} }).cert
}

func TestPinWithoutAKeyIsNil(t *testing.T) {
	if pin := (identity.RootSet{}).Pin(); pin != nil {
		t.Errorf("got %x", pin)
	}
}

func FuzzParseRootSet(f *testing.F) {
	_, doc, _ := signedSet(f)
	f.Add(doc)
	f.Add([]byte("signet-root-set-v1.e30.AA"))
	payload, _ := json.Marshal(map[string]any{"key": "AA"})
	f.Add([]byte("signet-root-set-v1." + base64.RawURLEncoding.EncodeToString(payload) + ".AA"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		rs, err := identity.ParseRootSet(doc, nil)
		if err != nil {
			return
		}
		if rs.Number == 0 || len(rs.Roots) == 0 || rs.TrustDomain.IsZero() || len(rs.Pin()) != 32 {
			t.Errorf("taken: %+v", rs)
		}
	})
}
