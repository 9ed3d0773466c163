package join

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
)

// shown is a handshake in which these certificates were shown.
func shown(chain ...*x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: chain}
}

// Whoever holds an SVID of the trust domain could else play the server.
func TestOnlyAServersSVIDIsAServer(t *testing.T) {
	root, other := svidstest.NewRoot(t), svidstest.NewRoot(t)
	verify := byTrust(func() *svids.Trust { return root.Trust(1) }, time.Now)
	for path, want := range map[string]bool{"/signet/server/one": true, "/signet/agent/one": false, "/shop/web": false} {
		leaf, _ := root.Leaf(path)
		if err := verify(shown(leaf)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	leaf, _ := other.Leaf("/signet/server/one")
	if err := verify(shown(leaf, other.Cert)); err == nil {
		t.Error("a server of another root was accepted")
	}
}

// The pinned root is no secret: an impostor can send it along.
func TestThePinnedRootMustHaveSignedTheServersChain(t *testing.T) {
	root, impostor := svidstest.NewRoot(t), svidstest.NewRoot(t)
	own, _ := root.Leaf("/signet/server/one")
	forged, _ := impostor.Leaf("/signet/server/one")
	near := slices.Clone(root.Pin())
	near[len(near)-1]++
	for name, c := range map[string]struct {
		pin   []byte
		chain []*x509.Certificate
		want  bool
	}{
		"the server":                  {root.Pin(), []*x509.Certificate{own, root.Cert}, true},
		"without the root":            {root.Pin(), []*x509.Certificate{own}, false},
		"an impostor with both roots": {root.Pin(), []*x509.Certificate{forged, impostor.Cert, root.Cert}, false},
		"a pin that is nearly it":     {near, []*x509.Certificate{own, root.Cert}, false},
	} {
		if err := byPin(c.pin, spiffeid.TrustDomain{})(shown(c.chain...)); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOlderRootSetDoesNotReplaceANewerOne(t *testing.T) {
	root := svidstest.NewRoot(t)
	e := &Enrolment{dir: &Dir{path: t.TempDir()}}
	for _, number := range []uint64{2, 1} {
		e.keep(root.Trust(number), "one")
	}
	if n := e.trust.Load().Roots.Number; n != 2 {
		t.Errorf("number %d is trusted", n)
	}
}

func TestTheAgentSpeaksTLS13Alone(t *testing.T) {
	leaf, key := svidstest.NewRoot(t).Leaf("/signet/server/one")
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
	conn, err := dial(l.Addr().String(), "one", func() *tls.Certificate { return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key} },
		func(tls.ConnectionState) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.NewAgentAPIClient(conn.Conn()).Attest(t.Context(), &api.AttestRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("err = %v", err)
	}
	if err := <-shaken; err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("the handshake: %v", err)
	}
	_, _ = conn.Close(), old.Close() // goleak sees what would stay
}
