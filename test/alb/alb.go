// Package alb is an AWS Application Load Balancer for tests: it calls targets as one does, signs
// tokens of users, and publishes its keys as its region does.
package alb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// ARN is that of the load balancer.
const ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"

// Issuer and Client are of those who vouch for its users.
const (
	Issuer = "https://login.example"
	Client = "4j3h2g1f"
)

// Key is one that it signs by.
type Key struct {
	ID      string
	private *ecdsa.PrivateKey
}

// NewKey makes one with a new id.
func NewKey(t testing.TB) Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // which does not fail
	return Key{fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), private}
}

// PEM is as the key is published.
func (k Key) PEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Header is that of a good token.
func (k Key) Header(until time.Time) map[string]any {
	return map[string]any{"typ": "JWT", "kid": k.ID, "alg": "ES256", "iss": Issuer, "client": Client, "signer": ARN, "exp": until.Unix()}
}

// Claims of a user, which a load balancer completes so.
func Claims(sub string, until time.Time) map[string]any {
	return map[string]any{"sub": sub, "email": sub + "@shop.example", "username": sub, "exp": until.Unix(), "iss": Issuer}
}

// Sign makes the token of a header and claims: three parts that keep their padding.
func (k Key) Sign(t testing.TB, header, claims any) string {
	t.Helper()
	var parts []string
	for _, v := range []any{header, claims} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.URLEncoding.EncodeToString(b))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, ".")))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return strings.Join(append(parts, base64.URLEncoding.EncodeToString(signature)), ".")
}

// Token is a good one of a user.
func (k Key) Token(t testing.TB, sub string) string {
	t.Helper()
	until := time.Now().Add(2 * time.Minute)
	return k.Sign(t, k.Header(until), Claims(sub, until))
}

// Region publishes keys by their ids, and counts what it was asked for.
type Region struct {
	URL string

	mu     sync.Mutex // guards the following
	keys   map[string][]byte
	asked  map[string]int
	answer int
}

// NewRegion publishes until the test ends.
func NewRegion(t testing.TB, keys ...Key) *Region {
	t.Helper()
	r := &Region{keys: map[string][]byte{}, asked: map[string]int{}}
	for _, k := range keys {
		r.Publish(k.ID, k.PEM(t))
	}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.URL = s.URL
	return r
}

// Publish has text under an id; none takes it away.
func (r *Region) Publish(id string, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[id] = text; text == nil {
		delete(r.keys, id)
	}
}

// Fail has it answer everything with a status; 0 is as before.
func (r *Region) Fail(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = status
}

// Asked is how often it was, for an id, and in all.
func (r *Region) Asked(id string) (it, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.asked {
		all += n
	}
	return r.asked[id], all
}

// ServeHTTP implements http.Handler.
func (r *Region) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id := strings.TrimPrefix(req.URL.Path, "/")
	r.mu.Lock()
	r.asked[id]++
	text, found, answer := r.keys[id], r.keys[id] != nil, r.answer
	r.mu.Unlock()
	switch {
	case answer != 0:
		w.WriteHeader(answer)
	case !found:
		w.WriteHeader(http.StatusForbidden) // as an object store without the right to list
	default:
		_, _ = w.Write(text)
	}
}
