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

func TestMain(m *testing.M) {
	ca.ForTestFastKeys()
	goleak.VerifyTestMain(m)
}

var (
	td       = spiffeid.RequireTrustDomainFromString("mesh.example")
	password = []byte("correct horse")
	// noon is when every test begins.
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

// made is an authority with its folder's files.
type made struct {
	authority *ca.Authority
	files     map[string][]byte
}

// madeOnce makes one for all tests: a copy of it is a fresh authority.
var madeOnce = sync.OnceValues(func() (m made, err error) {
	parent, err := os.MkdirTemp("", "ca")
	if err != nil {
		return m, err
	}
	defer func() { _ = os.RemoveAll(parent) }()
	dir := filepath.Join(parent, "ca")
	if err := ca.Init(dir, td, password, noon); err != nil {
		return m, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return m, err
	}
	m.files = map[string][]byte{}
	for _, e := range entries {
		if m.files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return m, err
		}
	}
	m.authority, err = ca.OpenAuthority(dir, password, func() time.Time { return noon }, nil)
	return m, err
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
	m, err := madeOnce()
	if err != nil {
		t.Fatal(err)
	}
	w.authority = m.authority.ForTestClone(w.clock.Now)
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
