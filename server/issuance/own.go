package issuance

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
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

// The server's own certificate is renewed like everyone's (D15): at a fifth of
// its life, and soon again when that fails.
const serverLifetime = time.Hour

var renewing = retry.Policy{First: 5 * time.Second, Most: time.Minute}

// OwnConfig is what Own is made of. Every field is needed.
type OwnConfig struct {
	ID     spiffeid.ID // the server's
	Issuer Issuer
	Roots  func() Roots
	Log    *slog.Logger
	Clock  func() time.Time
	// Exchanged is called with the key exchange of each connection.
	Exchanged func(tls.CurveID)
}

// Own is the server's own identity on the agents' listener. The key is made
// here and never leaves memory.
type Own struct {
	cfg OwnConfig
	now atomic.Pointer[tls.Certificate]
}

// NewOwn has no certificate until Renew has returned nil.
func NewOwn(cfg OwnConfig) *Own { return &Own{cfg: cfg} }

// Renew gets a certificate for a new key.
func (o *Own) Renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	chain, err := one(ctx, o.cfg.Issuer, &api.SignItem{
		SpiffeId: o.cfg.ID.String(), Csr: csr, Profile: api.Profile_PROFILE_SERVER, Requester: "server",
		Lifetime: durationpb.New(serverLifetime),
	})
	if err != nil {
		return fmt.Errorf("issue %s: %w", o.cfg.ID, err)
	}
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return fmt.Errorf("issue %s: %w", o.cfg.ID, err)
	}
	return o.complete(cert)
}

// complete adds the root to the chain: an agent that joins has only its pin and
// must see the certificate that the pin is of.
func (o *Own) complete(cert *tls.Certificate) error {
	last, err := x509.ParseCertificate(cert.Certificate[len(cert.Certificate)-1])
	if err != nil {
		return fmt.Errorf("issue %s: %w", o.cfg.ID, err)
	}
	for _, root := range o.cfg.Roots().Set.Roots {
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
	return fmt.Errorf("issue %s: the chain leads to none of our roots", o.cfg.ID)
}

// Run renews until ctx ends.
func (o *Own) Run(ctx context.Context) error {
	tries := retry.Tries{Policy: renewing}
	for wait := o.due(); watched.Sleep(ctx, wait); {
		err := o.Renew(ctx)
		if err == nil {
			tries.Succeeded()
			wait = o.due()
			continue
		}
		if ctx.Err() == nil {
			o.cfg.Log.WarnContext(ctx, "own certificate not renewed", slog.String("spiffe_id", o.cfg.ID.String()), slog.Any("err", err))
		}
		wait = tries.Failed(0, err)
	}
	return nil
}

// due is in how long the certificate is to be renewed; never at once, whatever its life.
func (o *Own) due() time.Duration {
	return max(o.now.Load().Leaf.NotAfter.Sub(o.cfg.Clock())-serverLifetime*4/5, renewing.First)
}

// TLSConfig is what the agents' listener speaks: TLS 1.3, no resumption (a ticket
// would outlive a ban, A08), and a client certificate always. Which one is enough
// for what is access's question, method by method.
func (o *Own) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       identity.KeyExchanges(),
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             []string{"h2"},
		VerifyConnection: func(cs tls.ConnectionState) error {
			o.cfg.Exchanged(cs.CurveID)
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
