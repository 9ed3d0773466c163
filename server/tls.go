package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/identity"
)

// The server's own certificate is renewed like everyone's (D15): at a fifth of
// its life, and soon again when that fails.
const (
	serverLifetime = time.Hour
	renewRetry     = 5 * time.Second
)

// ownSVID is the server's own identity on the agents' listener. The key is made
// here and never leaves memory.
type ownSVID struct {
	id     spiffeid.ID
	signer issuing
	roots  func() rootSet
	log    *slog.Logger
	clock  func() time.Time
	// exchanged is told the key exchange of each connection.
	exchanged func(tls.CurveID)

	now atomic.Pointer[tls.Certificate]
}

// renew gets a certificate for a new key.
func (o *ownSVID) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	chain, err := issueOne(ctx, o.signer, &api.SignItem{
		SpiffeId: o.id.String(), Csr: csr, Profile: api.Profile_PROFILE_SERVER, Requester: "server",
		Lifetime: durationpb.New(serverLifetime),
	})
	if err != nil {
		return fmt.Errorf("issue %s: %w", o.id, err)
	}
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return fmt.Errorf("issue %s: %w", o.id, err)
	}
	return o.complete(cert)
}

// complete adds the root to the chain: an agent that joins has only its pin and
// must see the certificate that the pin is of.
func (o *ownSVID) complete(cert *tls.Certificate) error {
	last, err := x509.ParseCertificate(cert.Certificate[len(cert.Certificate)-1])
	if err != nil {
		return fmt.Errorf("issue %s: %w", o.id, err)
	}
	for _, root := range o.roots().Roots {
		if last.Equal(root) {
			o.now.Store(cert)
			return nil
		}
		if last.CheckSignatureFrom(root) == nil {
			cert.Certificate = append(cert.Certificate, root.Raw)
			o.now.Store(cert)
			return nil
		}
	}
	return fmt.Errorf("issue %s: the chain leads to none of our roots", o.id)
}

// run renews until ctx ends.
func (o *ownSVID) run(ctx context.Context) error {
	for {
		leaf := o.now.Load().Leaf
		wait := leaf.NotAfter.Sub(o.clock()) - serverLifetime*4/5
		timer := time.NewTimer(max(wait, renewRetry))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := o.renew(ctx); err != nil && ctx.Err() == nil {
			o.log.WarnContext(ctx, "own certificate not renewed", slog.String("spiffe_id", o.id.String()), slog.Any("err", err))
		}
	}
}

// tlsConfig is what the agents' listener speaks: TLS 1.3, no resumption (a ticket
// would outlive a ban, A08), and a client certificate always. Which one is enough
// for what is access's question, method by method.
func (o *ownSVID) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       identity.KeyExchanges(),
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             []string{"h2"},
		VerifyConnection: func(cs tls.ConnectionState) error {
			o.exchanged(cs.CurveID)
			return nil
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := o.now.Load(); c != nil {
				return c, nil
			}
			return nil, errors.New("no certificate yet")
		},
	}
}
