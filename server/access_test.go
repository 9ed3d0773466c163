package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// certificate is of key, signed by another one.
func certificate(t *testing.T, key, by crypto.Signer) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	parent := &x509.Certificate{PublicKey: by.Public()}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAHostKeyIsOneSelfSignedCertificate(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	key, other := newKey(t), newKey(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key   crypto.Signer
		chain [][]byte
		want  codes.Code
	}{
		"as it must be":     {key, [][]byte{certificate(t, key, key)}, codes.OK},
		"signed by another": {key, [][]byte{certificate(t, key, other)}, codes.Unauthenticated},
		"two of them":       {other, [][]byte{certificate(t, other, other), certificate(t, key, key)}, codes.Unauthenticated},
		"P-521":             {p521, [][]byte{certificate(t, p521, p521)}, codes.Unauthenticated},
		"RSA":               {weak, [][]byte{certificate(t, weak, weak)}, codes.Unauthenticated},
	} {
		h := newHost(r)
		h.hostKey = tls.Certificate{Certificate: c.chain, PrivateKey: c.key}
		if err := h.attest(r.token("front")); status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheAgentsListenerSpeaksTLS13AndResumesNothing(t *testing.T) {
	r := newRig(t)
	connect := func(cfg *tls.Config) (tls.ConnectionState, error) {
		cfg.Certificates, cfg.NextProtos = []tls.Certificate{selfSigned(t)}, []string{"h2"}
		cfg.InsecureSkipVerify = true
		c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", r.addr.Agents)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Read(make([]byte, 1)) // the server's first frame comes behind its tickets
		return c.(*tls.Conn).ConnectionState(), err
	}
	if s, err := connect(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil { //nolint:gosec // too old on purpose
		t.Errorf("version %x", s.Version)
	}
	sessions := tls.NewLRUClientSessionCache(1)
	for range 2 {
		if s, err := connect(&tls.Config{ClientSessionCache: sessions, ServerName: "x"}); err != nil || s.DidResume {
			t.Errorf("resumed %t, %v", s.DidResume, err)
		}
	}
}
