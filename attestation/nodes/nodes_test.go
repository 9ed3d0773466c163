package nodes_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/attestation/awscaller"
	"signet.example/attestation/awstask"
	"signet.example/attestation/jointoken"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/test/parts"
)

// connection returns both ends of a TLS connection after its handshake.
func connection(t *testing.T, version uint16) (client, server tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	s := tls.Server(far, &tls.Config{MinVersion: version, MaxVersion: version, SessionTicketsDisabled: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(t.Context()) }()
	c := tls.Client(near, &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true}) //nolint:gosec // a test's own
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), s.ConnectionState()
}

func TestAChallengeIsOfOneConnectionOneHostKeyAndOneMethod(t *testing.T) {
	one, other := spiffeid.RequireTrustDomainFromString("one.example"), spiffeid.RequireTrustDomainFromString("other.example")
	near, far := connection(t, tls.VersionTLS13)
	again, _ := connection(t, tls.VersionTLS13)
	key := bytes.Repeat([]byte{7}, 32)
	of := func(c nodes.Channel, method string) []byte {
		t.Helper()
		s, err := c.Challenge(method)
		if err != nil || len(s) != 32 {
			t.Fatalf("%x, %v", s, err)
		}
		return s
	}
	want := of(nodes.Channel{TrustDomain: one, HostKey: key, TLS: far}, "m")
	if !bytes.Equal(want, of(nodes.Channel{TrustDomain: one, HostKey: key, TLS: near}, "m")) {
		t.Error("the two ends of a connection have other challenges")
	}
	for what, got := range map[string][]byte{
		"another connection":   of(nodes.Channel{TrustDomain: one, HostKey: key, TLS: again}, "m"),
		"another host key":     of(nodes.Channel{TrustDomain: one, HostKey: bytes.Repeat([]byte{8}, 32), TLS: near}, "m"),
		"another trust domain": of(nodes.Channel{TrustDomain: other, HostKey: key, TLS: near}, "m"),
		"another method":       of(nodes.Channel{TrustDomain: one, HostKey: key, TLS: near}, "mm"),
	} {
		if bytes.Equal(got, want) {
			t.Errorf("%s has the same challenge", what)
		}
	}
	old, _ := connection(t, tls.VersionTLS12)
	for what, cs := range map[string]tls.ConnectionState{"TLS 1.2": old, "no handshake": {}} {
		if _, err := (nodes.Channel{TrustDomain: one, HostKey: key, TLS: cs}).Challenge("m"); err == nil {
			t.Errorf("%s has a challenge", what)
		}
	}
}

func TestEvidenceOfAMethodThatIsNotTurnedOnIsRefusedByItsName(t *testing.T) {
	if m := nodes.Method(&api.AttestRequest{Csr: []byte("x")}); m != "" {
		t.Errorf("a request without evidence has method %q", m)
	}
	token, err := jointoken.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	req := &api.AttestRequest{}
	if err := nodes.Token(token)(t.Context(), nodes.Channel{}, req); err != nil || nodes.Method(req) != "join_token" || req.GetJoinToken() != token.SecretText() {
		t.Errorf("%q, %v", nodes.Method(req), err)
	}
}

func TestASelectorThatNoHostHasIsRefusedInAGroup(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("one.example")
	for _, s := range []string{"unix:uid:1", "join_token:x", "aws_iid:tag:a:b", "nonsense"} {
		g, err := identity.NodeGroupSpec{Selectors: []string{s}}.Build("g", td)
		err = errors.Join(err, nodes.CheckGroup(g))
		if all := identity.FieldErrors(err); len(all) != 1 || all[0].Path != "spec.selectors[0]" {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := nodes.CheckGroup(identity.NodeGroup{Name: "g"}); err != nil {
		t.Error(err)
	}
}

func TestATaskShowsItsARNBesideItsEvidence(t *testing.T) {
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	arn := parts.ECSTaskARN("0123456789abcdef0123456789abcdef")
	near, _ := connection(t, tls.VersionTLS13)
	on := nodes.Channel{TrustDomain: spiffeid.RequireTrustDomainFromString("one.example"), HostKey: bytes.Repeat([]byte{7}, 32), TLS: near}
	for _, cfg := range []nodes.HostConfig{
		{AWSTask: awstask.Host{Region: "environment", Endpoint: aws.URL()}, Task: arn},
		{AWSCaller: awscaller.Host{Region: "environment"}, Task: arn},
	} {
		var req api.AttestRequest
		evidence, err := cfg.Evidence()
		if err == nil {
			err = evidence(t.Context(), on, &req)
		}
		if shown := req.GetAwsTask().GetTask() + req.GetAwsCallerIdentity().GetTask(); err != nil || shown != arn {
			t.Errorf("%s shows %q, %v", cfg.Given(), shown, err)
		}
	}
}
