package access

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"signet.example/api"
	"signet.example/server/issuance"
	"signet.example/store"
	"signet.example/test/impostor"
)

// An agent's chain is seen by whoever it calls; its key is not.
func TestTheServerTakesNobodyForAnAgentWhoHasNotItsKey(t *testing.T) {
	from, until := time.Now().Add(-time.Minute).Truncate(time.Second), time.Now().Add(time.Hour)
	root := (&testAuthority{t: t}).sign("", from, until)
	issuing := root.sign("", from, until)
	leaf := issuing.sign("/signet/agent/x", from, until)
	a := accessOf(store.Agent{ID: "x"})
	a.cfg.TrustDomain, a.cfg.Roots, a.cfg.Clock = spiffeid.RequireTrustDomainFromString("test.example"), rootsOf(root.cert), time.Now
	o := issuance.NewOwn(issuance.OwnConfig{
		ID: spiffeid.RequireFromString("spiffe://test.example/signet/server/server"), Issuer: issuesBy{issuing}, Roots: rootsOf(root.cert), Exchanged: func(tls.CurveID) {},
	})
	if err := o.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	call := func(method string, shows *tls.Certificate) error {
		_, seen, err := impostor.Handshake(t, &tls.Config{
			InsecureSkipVerify:   true, //nolint:gosec // the server is under test, not this client
			NextProtos:           []string{"h2"},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows, nil },
		}, o.TLSConfig())
		if err != nil {
			return err
		}
		p := &peer.Peer{Addr: &net.TCPAddr{}, AuthInfo: &tlsPeer{TLSInfo: credentials.TLSInfo{State: seen}}}
		_, _, err = a.identify(peer.NewContext(t.Context(), p), method)
		return err
	}
	for name, shows := range map[string]*tls.Certificate{
		"the agent": impostor.Shows(leaf.key, leaf.cert, issuing.cert), "with the root": impostor.Shows(leaf.key, leaf.cert, issuing.cert, root.cert),
	} {
		if err := call(api.AgentAPI_Issue_FullMethodName, shows); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	im := impostor.New(t, leaf.cert, issuing.cert, root.cert)
	for range impostor.Chains() {
		chain := im.Chain()
		if err := call(api.AgentAPI_Issue_FullMethodName, impostor.Shows(im.Key, chain...)); err == nil {
			t.Fatalf("an impostor was taken for the agent: %d certificates, the first is %s", len(chain), chain[0].Subject)
		}
		if err := call(api.AgentAPI_Issue_FullMethodName, impostor.Shows(leaf.key, chain...)); err == nil && !chain[0].Equal(leaf.cert) {
			t.Fatalf("verified by a certificate that is not the first of %d: %s", len(chain), chain[0].Subject)
		}
		if len(chain) == 1 {
			continue // one certificate of its own is a host key, which is nobody yet
		}
		if err := call(api.AgentAPI_Attest_FullMethodName, impostor.Shows(im.Key, chain...)); err == nil {
			t.Fatalf("a chain of %d is a host key", len(chain))
		}
	}
}
