package sds_test

import (
	"crypto/tls"
	"encoding/pem"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/sds"
)

func secret(t *testing.T, r *ads.Resource, err error) *tlsv3.Secret {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var s tlsv3.Secret
	if err := proto.Unmarshal(r.Body, &s); err != nil {
		t.Fatal(err)
	}
	if r.Type != ads.SecretType || r.Name != s.GetName() {
		t.Errorf("resource is %s %q, the secret in it %q", r.Type, r.Name, s.GetName())
	}
	return &s
}

func TestSVIDSecretIsNamedByTheIDAndHoldsAWorkingPair(t *testing.T) {
	svid := newAuthority(t).svid(t, "/shop/web")
	r, err := sds.SVIDSecret(svid.ID, svid.Chain, svid.Key)
	s := secret(t, r, err)
	if s.GetName() != "spiffe://test.example/shop/web" {
		t.Errorf("name %q", s.GetName())
	}
	c := s.GetTlsCertificate()
	if _, err := tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes()); err != nil {
		t.Errorf("pair: %v", err)
	}
}

func TestSVIDSecretRefusesACertificateForAnotherKey(t *testing.T) {
	a := newAuthority(t)
	one, other := a.svid(t, "/shop/web"), a.svid(t, "/shop/web")
	if _, err := sds.SVIDSecret(one.ID, one.Chain, other.Key); err == nil {
		t.Error("accepted")
	}
	if _, err := sds.SVIDSecret(one.ID, nil, one.Key); err == nil {
		t.Error("an empty chain was accepted")
	}
}

func TestBundleSecretIsNamedByTheTrustDomain(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	r, err := sds.BundleSecret(td, [][]byte{a.cert.Raw, b.cert.Raw})
	s := secret(t, r, err)
	if s.GetName() != "spiffe://test.example" {
		t.Errorf("name %q", s.GetName())
	}
	rest, n := s.GetValidationContext().GetTrustedCa().GetInlineBytes(), 0
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			break
		}
		rest, n = more, n+1
	}
	if n != 2 {
		t.Errorf("%d roots, want 2", n)
	}
}

func TestBundleSecretRefusesAnEmptyBundle(t *testing.T) {
	// Envoy would take it as "verify nothing".
	if _, err := sds.BundleSecret(td, nil); err == nil {
		t.Error("accepted")
	}
}
