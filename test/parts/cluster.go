package parts

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// Cluster is a cluster of Kubernetes as pods and their verifiers see it: it signs tokens for
// pods, and has its keys at an URL.
type Cluster struct {
	t       testing.TB
	key     *rsa.PrivateKey
	server  *httptest.Server
	Fetches atomic.Int64 // of the key set
}

// NewCluster starts one.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, key: key}
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.Fetches.Add(1)
		_, _ = w.Write(c.JWKS())
	}))
	t.Cleanup(c.server.Close)
	return c
}

// Issuer is the cluster's --service-account-issuer, KeysURL where its keys are.
func (c *Cluster) Issuer() string { return c.server.URL }

// KeysURL is where an API server has the keys.
func (c *Cluster) KeysURL() string { return c.server.URL + "/openid/v1/jwks" }

// JWKS is the key set.
func (c *Cluster) JWKS() []byte {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		c.t.Error(err)
	}
	return b
}

// Pod is one that has a token.
type Pod struct{ Namespace, ServiceAccount, Name, UID string }

// Claims are those of a new token of a pod for an audience, as Kubernetes 1.33 writes them.
func (c *Cluster) Claims(p Pod, audience string) map[string]any {
	now := time.Now()
	return map[string]any{
		"aud": []string{audience}, "iss": c.Issuer(), "sub": "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "jti": rand.Text(),
		"kubernetes.io": map[string]any{
			"namespace": p.Namespace, "node": map[string]any{"name": "node-1", "uid": "6a4ee3f0-77a2-4a41-8c3c-0c5a3e0b9a11"},
			"pod": map[string]any{"name": p.Name, "uid": p.UID}, "serviceaccount": map[string]any{"name": p.ServiceAccount, "uid": "0f6f52a1-6e4b-4b0e-8a52-27c7b6f0a9f3"},
		},
	}
}

// Sign makes a token of claims as they are.
func (c *Cluster) Sign(claims map[string]any) string {
	c.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: c.key, KeyID: "1"}}, nil)
	payload, notJSON := json.Marshal(claims)
	if err := errors.Join(err, notJSON); err != nil {
		c.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// Project writes a token where a kubelet would, and returns the file.
func (c *Cluster) Project(token string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}
