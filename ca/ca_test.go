package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"signet.example/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	td       = spiffeid.RequireTrustDomainFromString("mesh.example")
	password = []byte("correct horse")
	// noon is when every test begins.
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// madeOnce is one authority's folder: deriving a key from a password is slow on
// purpose, and with -race slower.
var madeOnce = sync.OnceValues(func() (*ca.Authority, error) {
	dir, err := os.MkdirTemp("", "ca")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // opened is all that is needed
	if err := ca.Init(filepath.Join(dir, "ca"), td, password, noon); err != nil {
		return nil, err
	}
	return ca.OpenAuthority(filepath.Join(dir, "ca"), password, func() time.Time { return noon }, nil)
})

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// world is an authority, its log and an issuer at noon.
type world struct {
	authority *ca.Authority
	log       *ca.Log
	path      string
	clock     *clock
	issuer    *ca.Issuer
}

func newWorld(t testing.TB, profiles ca.Profiles) *world {
	t.Helper()
	w := &world{clock: &clock{now: noon}, path: newLog(t)}
	a, err := madeOnce()
	if err != nil {
		t.Fatal(err)
	}
	w.authority = a.ForTestClone(w.clock.Now)
	w.log = openLog(t, w.path)
	w.issuer = ca.NewIssuer(w.authority, w.log, profiles)
	return w
}

func newLog(t testing.TB) string {
	t.Helper()
	content, err := ca.ForTestNewLog(td, noon)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openLog(t testing.TB, path string) *ca.Log {
	t.Helper()
	l, err := ca.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // some tests close it themselves
	return l
}

// issue makes one certificate and returns it with its issuer.
func (w *world) issue(t testing.TB, r ca.Request) []*x509.Certificate {
	t.Helper()
	result := w.issuer.Issue(t.Context(), []ca.Request{r})[0]
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	var chain []*x509.Certificate
	for _, der := range result.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

func (w *world) records(t testing.TB) []ca.Record {
	t.Helper()
	records, err := w.log.Read(1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// request asks for spiffe://mesh.example/<path> with a new P-256 key.
func request(t testing.TB, path string) ca.Request {
	return requestFor(t, path, newKey(t))
}

func requestFor(t testing.TB, path string, key crypto.Signer) ca.Request {
	t.Helper()
	return ca.Request{
		ID: spiffeid.RequireFromPath(td, path), CSR: csr(t, key), Profile: ca.ProfileWorkload,
		Requester: "spiffe://mesh.example/signet/agent/a1",
	}
}

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) *ecdsa.PrivateKey { return curveKey(t, elliptic.P256()) }

func curveKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
