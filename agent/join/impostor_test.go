package join

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/test/impostor"
)

// handshake is the agent's handshake with a server that shows this.
func handshake(t *testing.T, verify serverVerifier, server, own *tls.Certificate) error {
	t.Helper()
	_, _, err := impostor.Handshake(t, clientTLS(func() *tls.Certificate { return own }, verify), &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true, Certificates: []tls.Certificate{*server},
	})
	return err
}

// Whoever is on the path has seen the server's chain, and can show it with
// anything else; the server's key it has not.
func TestTheAgentTakesNobodyForTheServerWhoHasNotItsKey(t *testing.T) {
	root := svidstest.NewRoot(t)
	issuing := root.Issuing()
	leaf, key := issuing.Leaf("/signet/server/one")
	anchored := root.Trust(1)
	own, ownKey := issuing.Leaf("/signet/agent/one")
	client := impostor.Shows(ownKey, own, issuing.Cert)
	im := impostor.New(t, leaf, issuing.Cert, root.Cert)
	for name, verify := range map[string]serverVerifier{
		"at the join":    byPin(root.Pin(), spiffeid.TrustDomain{}),
		"after the join": byTrust(func() *svids.Trust { return anchored }, time.Now),
	} {
		if err := handshake(t, verify, impostor.Shows(key, leaf, issuing.Cert, root.Cert), client); err != nil {
			t.Errorf("%s: the server itself: %v", name, err)
		}
		for i := range impostor.Chains() {
			chain := im.Chain()
			if i == 0 { // as it was found
				chain = append([]*x509.Certificate{chain[0]}, leaf, issuing.Cert, root.Cert)
			}
			if err := handshake(t, verify, impostor.Shows(im.Key, chain...), client); err == nil {
				t.Fatalf("%s: an impostor was taken for the server: %d certificates, the first is %s", name, len(chain), chain[0].Subject)
			}
			if err := handshake(t, verify, impostor.Shows(key, chain...), client); err == nil && !chain[0].Equal(leaf) {
				t.Fatalf("%s: verified by a certificate that is not the first of %d: %s", name, len(chain), chain[0].Subject)
			}
		}
	}
	if err := handshake(t, byTrust(func() *svids.Trust { return anchored }, time.Now), impostor.Shows(key, leaf, issuing.Cert), client); err != nil {
		t.Errorf("after the join, the server without its root: %v", err)
	}
}
