package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/identity"
)

var testDomain = spiffeid.RequireTrustDomainFromString("test.example")

// testRoot is a root that signs leaves and root sets.
type testRoot struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newTestRoot(t testing.TB) *testRoot {
	t.Helper()
	r := &testRoot{t: t}
	r.cert, r.key = r.sign(testDomain.ID(), &x509.Certificate{
		Subject: pkix.Name{CommonName: rand.Text()}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return r
}

func (r *testRoot) sign(id spiffeid.ID, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SerialNumber, c.URIs = big.NewInt(1), append(c.URIs, id.URL())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, by := r.cert, r.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		r.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		r.t.Fatal(err)
	}
	return c, key
}

func (r *testRoot) leaf(path string) (*x509.Certificate, *ecdsa.PrivateKey) {
	r.t.Helper()
	return r.sign(spiffeid.RequireFromPath(testDomain, path), &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (r *testRoot) pin() []byte {
	sum := sha256.Sum256(r.cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// rootSet is a document that r signs.
func (r *testRoot) rootSet(number uint64, roots ...*x509.Certificate) []byte {
	r.t.Helper()
	doc, err := identity.RootSet{TrustDomain: testDomain, Number: number, Roots: roots}.Sign(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return doc
}

func (r *testRoot) trust(number uint64) *trust {
	r.t.Helper()
	t, err := parseTrust(r.rootSet(number, r.cert), r.pin())
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// shown is a handshake in which these certificates were shown.
func shown(chain ...*x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: chain}
}

// Whoever holds an SVID of the trust domain could else play the server.
func TestOnlyAServersSVIDIsAServer(t *testing.T) {
	root, other := newTestRoot(t), newTestRoot(t)
	verify := byTrust(func() *trust { return root.trust(1) }, time.Now)
	for path, want := range map[string]bool{"/signet/server/one": true, "/signet/agent/one": false, "/shop/web": false} {
		leaf, _ := root.leaf(path)
		if err := verify(shown(leaf)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	leaf, _ := other.leaf("/signet/server/one")
	if err := verify(shown(leaf, other.cert)); err == nil {
		t.Error("a server of another root was accepted")
	}
}

// The pinned root is no secret: an impostor can send it along.
func TestThePinnedRootMustHaveSignedTheServersChain(t *testing.T) {
	root, impostor := newTestRoot(t), newTestRoot(t)
	own, _ := root.leaf("/signet/server/one")
	forged, _ := impostor.leaf("/signet/server/one")
	near := slices.Clone(root.pin())
	near[len(near)-1]++
	for name, c := range map[string]struct {
		pin   []byte
		chain []*x509.Certificate
		want  bool
	}{
		"the server":                  {root.pin(), []*x509.Certificate{own, root.cert}, true},
		"without the root":            {root.pin(), []*x509.Certificate{own}, false},
		"an impostor with both roots": {root.pin(), []*x509.Certificate{forged, impostor.cert, root.cert}, false},
		"a pin that is nearly it":     {near, []*x509.Certificate{own, root.cert}, false},
	} {
		if err := (&enrolment{}).byPin(c.pin)(shown(c.chain...)); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARootSetIsFollowedIfItIsNewerAndOfTheSameKey(t *testing.T) {
	root, other := newTestRoot(t), newTestRoot(t)
	now := root.trust(5)
	for name, c := range map[string]struct {
		doc  []byte
		want uint64
		err  bool
	}{
		"the next":           {root.rootSet(6, root.cert, other.cert), 6, false},
		"the same again":     {root.rootSet(5, root.cert), 5, false},
		"an older one":       {root.rootSet(4, root.cert, other.cert), 5, false},
		"one of another key": {other.rootSet(6, other.cert), 5, true},
	} {
		r, err := ads.NewResource(ads.BundleType, testDomain.Name(), &api.Bundle{TrustDomain: testDomain.Name(), SignedRootSet: c.doc})
		if err != nil {
			t.Fatal(err)
		}
		set, err := ads.NewSet(r)
		if err != nil {
			t.Fatal(err)
		}
		next, err := now.follow(set)
		if (err != nil) != c.err || next.roots.Number != c.want {
			t.Errorf("%s: number %d, %v", name, next.roots.Number, err)
		}
	}
}

func TestAnOlderRootSetDoesNotReplaceANewerOne(t *testing.T) {
	root := newTestRoot(t)
	e := &enrolment{dir: &dataDir{path: t.TempDir()}}
	for _, number := range []uint64{2, 1} {
		e.keep(root.trust(number), "one")
	}
	if n := e.trust.Load().roots.Number; n != 2 {
		t.Errorf("number %d is trusted", n)
	}
}

func TestTheAgentSpeaksTLS13Alone(t *testing.T) {
	leaf, key := newTestRoot(t).leaf("/signet/server/one")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	old := tls.NewListener(l, &tls.Config{ //nolint:gosec // too old on purpose
		MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}},
	})
	shaken := make(chan error, 1)
	go func() {
		c, err := old.Accept()
		if err == nil {
			err = c.(*tls.Conn).HandshakeContext(t.Context())
			_ = c.Close()
		}
		shaken <- err
	}()
	conn, err := (&enrolment{server: l.Addr().String()}).dial(new(line), func() *tls.Certificate { return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key} },
		func(tls.ConnectionState) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.NewAgentAPIClient(conn).Attest(t.Context(), &api.AttestRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("err = %v", err)
	}
	if err := <-shaken; err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("the handshake: %v", err)
	}
	_, _ = conn.Close(), old.Close() // goleak sees what would stay
}
