package access

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/underway"
	"signet.example/server/issuance"
	"signet.example/store"
)

// testAuthority signs chains that end when a test says.
type testAuthority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *testAuthority) sign(path string, from, until time.Time) *testAuthority {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return &testAuthority{a.t, a.signFor(path, from, until, key.Public(), key), key}
}

// signFor is sign for a key of somebody else's, or for self where a has none.
func (a *testAuthority) signFor(path string, from, until time.Time, pub crypto.PublicKey, self *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: from, NotAfter: until,
		BasicConstraintsValid: true, URIs: []*url.URL{{Scheme: "spiffe", Host: "test.example", Path: path}},
	}
	if path == "" {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, self
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// issuesBy is an issuer that signs whatever is asked for (issuance.Issuer).
type issuesBy struct{ *testAuthority }

func (i issuesBy) Issue(_ context.Context, items []*api.SignItem) ([]*api.SignResult, error) {
	var out []*api.SignResult
	for _, item := range items {
		csr, err := x509.ParseCertificateRequest(item.GetCsr())
		if err != nil {
			return nil, err
		}
		path := spiffeid.RequireFromString(item.GetSpiffeId()).Path()
		out = append(out, &api.SignResult{Chain: [][]byte{i.signFor(path, i.cert.NotBefore, i.cert.NotAfter, csr.PublicKey, nil).Raw, i.cert.Raw}})
	}
	return out, nil
}

// The second call on a connection is not the first: what ends between them ends it.
func TestAnAgentThatWasLetInOnceIsRefusedAsSoonAsAnythingOfItEnds(t *testing.T) {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	hours := func(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Hour))) }
	joined := store.Agent{ID: "x", Group: "g"}
	for name, c := range map[string]struct {
		root, issuing, leaf float64 // hours that they last
		then                func(a *Access)
		refused             bool
	}{
		"nothing has changed":     {8, 4, 2, func(*Access) {}, false},
		"just not expired":        {8, 4, 2, func(a *Access) { a.cfg.Clock = func() time.Time { return hours(2) } }, false},
		"its SVID has expired":    {8, 4, 2, func(a *Access) { a.cfg.Clock = func() time.Time { return hours(2.1) } }, true},
		"its issuer has expired":  {8, 2, 4, func(a *Access) { a.cfg.Clock = func() time.Time { return hours(2.1) } }, true},
		"the root has expired":    {2, 4, 4, func(a *Access) { a.cfg.Clock = func() time.Time { return hours(2.1) } }, true},
		"the clock was set back":  {8, 4, 2, func(a *Access) { a.cfg.Clock = func() time.Time { return hours(-0.1) } }, true},
		"it was banned":           {8, 4, 2, func(a *Access) { put(a.cfg.Roster, store.Agent{ID: "x", Group: "g", Banned: true}) }, true},
		"it was forgotten":        {8, 4, 2, func(a *Access) { a.cfg.Roster = rosterOf() }, true},
		"the roots were replaced": {8, 4, 2, func(a *Access) { a.cfg.Roots = rootsOf((&testAuthority{t: t}).sign("", noon, hours(8)).cert) }, true},
		"a root came to them": {8, 4, 2, func(a *Access) {
			a.cfg.Roots = rootsOf(append(a.cfg.Roots().Set.Roots, (&testAuthority{t: t}).sign("", noon, hours(8)).cert)...)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := (&testAuthority{t: t}).sign("", noon, hours(c.root))
			issuing := root.sign("", noon, hours(c.issuing))
			leaf := issuing.sign("/signet/agent/x", noon, hours(c.leaf))
			a := accessOf(joined)
			a.cfg.TrustDomain, a.cfg.Roots, a.cfg.Clock = spiffeid.RequireTrustDomainFromString("test.example"), rootsOf(root.cert), func() time.Time { return hours(1) }
			p := &tlsPeer{TLSInfo: credentials.TLSInfo{State: tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf.cert, issuing.cert}}}}
			for range 2 {
				if err := a.proveAgent(&Caller{}, p); err != nil {
					t.Fatal(err)
				}
			}
			c.then(a)
			err := a.proveAgent(&Caller{}, p)
			if (err != nil) != c.refused {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func rootsOf(certs ...*x509.Certificate) func() issuance.Roots {
	set := issuance.Roots{Set: identity.RootSet{Roots: certs}, Pool: identity.PoolOf(certs...)}
	return func() issuance.Roots { return set }
}

func TestAConnectionsChainIsVerifiedOnce(t *testing.T) {
	noon := time.Now().Truncate(time.Second)
	root := (&testAuthority{t: t}).sign("", noon, noon.Add(time.Hour))
	leaf := root.sign("/signet/agent/x", noon, noon.Add(time.Hour))
	a := accessOf(store.Agent{ID: "x"})
	a.cfg.TrustDomain, a.cfg.Roots, a.cfg.Clock = spiffeid.RequireTrustDomainFromString("test.example"), rootsOf(root.cert), func() time.Time { return noon }
	p := &tlsPeer{TLSInfo: credentials.TLSInfo{State: tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf.cert}}}}
	if _, err := a.verifySVID(p); err != nil {
		t.Fatal(err)
	}
	first := p.path.Load()
	if _, err := a.verifySVID(p); err != nil || p.path.Load() != first {
		t.Errorf("verified again, or refused: %v", err)
	}
}

// shown is a handshake in which the other end shows a chain, and proves that it is its own.
type shown struct {
	credentials.TransportCredentials
	chain []*x509.Certificate
}

func (s shown) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, credentials.TLSInfo{State: tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: s.chain}}, nil
}

// from is a connection that comes from an address.
type from struct {
	net.Conn
	addr net.IP
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: f.addr, Port: 1} }

// A9-79: before its first whole call a connection had the room of its address, however many
// agents of one role there were.
func TestAConnectionIsInTheRoomOfItsRoleBeforeItCalls(t *testing.T) {
	noon := time.Now().Truncate(time.Second)
	root := (&testAuthority{t: t}).sign("", noon, noon.Add(time.Hour))
	svid := []*x509.Certificate{root.sign("/signet/agent/x", noon, noon.Add(time.Hour)).cert}
	hostKey := []*x509.Certificate{(&testAuthority{t: t}).sign("/host", noon, noon.Add(time.Hour)).cert}
	sum := sha256.Sum256(hostKey[0].RawSubjectPublicKeyInfo)
	for name, chain := range map[string][]*x509.Certificate{"by its SVID": svid, "by its host key": hostKey} {
		t.Run(name, func(t *testing.T) {
			a := accessOf(store.Agent{ID: "x", HostKey: sum[:], Method: "aws_task"})
			a.cfg.TrustDomain, a.cfg.Roots, a.cfg.Clock = spiffeid.RequireTrustDomainFromString("test.example"), rootsOf(root.cert), func() time.Time { return noon }
			a.cfg.Principal = func(method string, _ []string) string { return method + ":role" }
			var log strings.Builder
			a.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			room := underway.New(underway.Most{Conn: 1 << 20, Peer: 1 << 20, All: 1 << 20, Others: 1 << 20, Share: 64 << 10})
			for n := range byte(3) {
				near, far := net.Pipe()
				t.Cleanup(func() { _ = near.Close() })
				conn, _, err := a.Credentials(shown{chain: chain}, room).ServerHandshake(from{far, net.IPv4(10, 0, 0, n)})
				if err != nil {
					t.Fatal(err)
				}
				sent := unfinished(t, 30<<10)
				go func() { _, _ = near.Write(sent) }() // it ends with the pipe
				if _, err := io.ReadFull(conn, make([]byte, len(sent))); err != nil {
					t.Fatal(err)
				}
			}
			if told := log.String(); strings.Count(told, "\n") != 1 || !strings.Contains(told, "10.0.0.0") || !strings.Contains(told, "of all of aws_task:role") {
				t.Errorf("of three, for two of which there is room, there gave way:\n%s", told)
			}
		})
	}
}

// unfinished is what a client sends of a call up to the middle of its message.
func unfinished(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&b, nil)
	if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83}, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteData(1, false, append(binary.BigEndian.AppendUint32([]byte{0}, 1<<20), make([]byte, n)...)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
