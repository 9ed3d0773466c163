package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"signet.example/identity"
	"signet.example/test/impostor"
)

// Whatever is inserted, repeated, moved or put before: only the first certificate
// is the one whose key a handshake proves.
func TestAPeerIsItsFirstCertificateOrNobody(t *testing.T) {
	root := newRoot(t, nil)
	issuing := root.intermediate(t, nil)
	leaf := issuing.leaf(t, nil)
	verify := func(chain ...*x509.Certificate) error {
		_, err := identity.VerifyPeer(tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: chain}, td, identity.PoolOf(root.cert), noon, x509.ExtKeyUsageServerAuth)
		return err
	}
	for name, chain := range map[string][]*x509.Certificate{
		"as it is issued": {leaf, issuing.cert}, "with its root": {leaf, issuing.cert, root.cert}, "in another order": {leaf, root.cert, issuing.cert},
	} {
		if err := verify(chain...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	im, taken := impostor.New(t, leaf, issuing.cert, root.cert), 0
	for range impostor.Chains() {
		chain := im.Chain()
		if err := verify(chain...); err != nil {
			continue
		}
		taken++
		if !chain[0].Equal(leaf) {
			t.Fatalf("verified by a certificate that is not the first of %d: %s", len(chain), chain[0].Subject)
		}
	}
	if taken == 0 {
		t.Error("no chain of these was taken: the test shows nothing")
	}
}

func TestAPeerIsVerifiedOnlyOnAFreshConnectionOfTLS13(t *testing.T) {
	root := newRoot(t, nil)
	chain := []*x509.Certificate{root.leaf(t, nil)}
	for name, cs := range map[string]tls.ConnectionState{
		"resumed":        {Version: tls.VersionTLS13, PeerCertificates: chain, DidResume: true},
		"TLS 1.2":        {Version: tls.VersionTLS12, PeerCertificates: chain},
		"no certificate": {Version: tls.VersionTLS13},
	} {
		if _, err := identity.VerifyPeer(cs, td, identity.PoolOf(root.cert), noon, x509.ExtKeyUsageServerAuth); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
