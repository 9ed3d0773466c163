package agent

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

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
	root := newTestRoot(t)
	issuing := &testRoot{t: t}
	issuing.cert, issuing.key = root.sign(testDomain.ID(), &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	leaf, key := issuing.leaf("/signet/server/one")
	anchored := root.trust(1)
	own, ownKey := issuing.leaf("/signet/agent/one")
	client := impostor.Shows(ownKey, own, issuing.cert)
	im := impostor.New(t, leaf, issuing.cert, root.cert)
	for name, verify := range map[string]serverVerifier{
		"at the join":    (&enrolment{}).byPin(root.pin()),
		"after the join": byTrust(func() *trust { return anchored }, time.Now),
	} {
		if err := handshake(t, verify, impostor.Shows(key, leaf, issuing.cert, root.cert), client); err != nil {
			t.Errorf("%s: the server itself: %v", name, err)
		}
		for i := range impostor.Chains() {
			chain := im.Chain()
			if i == 0 { // as it was found
				chain = append([]*x509.Certificate{chain[0]}, leaf, issuing.cert, root.cert)
			}
			if err := handshake(t, verify, impostor.Shows(im.Key, chain...), client); err == nil {
				t.Fatalf("%s: an impostor was taken for the server: %d certificates, the first is %s", name, len(chain), chain[0].Subject)
			}
			if err := handshake(t, verify, impostor.Shows(key, chain...), client); err == nil && !chain[0].Equal(leaf) {
				t.Fatalf("%s: verified by a certificate that is not the first of %d: %s", name, len(chain), chain[0].Subject)
			}
		}
	}
	if err := handshake(t, byTrust(func() *trust { return anchored }, time.Now), impostor.Shows(key, leaf, issuing.cert), client); err != nil {
		t.Errorf("after the join, the server without its root: %v", err)
	}
}

// The server's answer is held to the same: what comes first is the SVID.
func TestAnIssuedChainBeginsWithTheCertificateForOurKey(t *testing.T) {
	root := newTestRoot(t)
	leaf, key := root.leaf("/shop/web")
	im := impostor.New(t, leaf, root.cert)
	for range impostor.Chains() {
		chain := im.Chain()
		var der [][]byte
		for _, c := range chain {
			der = append(der, c.Raw)
		}
		s, err := newSVID("web", der, key, root.trust(1), time.Now())
		if err != nil {
			continue
		}
		if !chain[0].Equal(leaf) || !s.leaf.Equal(leaf) || len(s.chain) == 0 || string(s.chain[0]) != string(leaf.Raw) {
			t.Fatalf("an SVID out of a chain of %d that begins with %s", len(chain), chain[0].Subject)
		}
	}
	s, err := newSVID("web", [][]byte{leaf.Raw, root.cert.Raw}, key, root.trust(1), time.Now())
	if err != nil || len(s.chain) != 1 {
		t.Errorf("with its root: %v, sent on with %d certificates", err, len(s.chain))
	}
}
