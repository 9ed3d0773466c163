package agent

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
)

const attestTimeout = 10 * time.Second

// enrolment is the agent's standing with the servers: the host key that it
// joined with, and what it trusts since.
type enrolment struct {
	server  string
	td      spiffeid.TrustDomain // zero: learned from the join
	host    tls.Certificate
	log     *slog.Logger
	metrics *metrics

	// trust is nil before the join.
	trust watched[*trust]
}

func newEnrolment(cfg Config, m *metrics, log *slog.Logger) (*enrolment, error) {
	host, err := newHostKey(time.Now())
	if err != nil {
		return nil, err
	}
	e := &enrolment{server: cfg.Server, host: host, log: log, metrics: m}
	if cfg.TrustDomain != "" {
		if e.td, err = spiffeid.TrustDomainFromString(cfg.TrustDomain); err != nil {
			return nil, fmt.Errorf("trust_domain: %w", err)
		}
	}
	return e, nil
}

// join spends the token and returns the agent's first SVID. It waits for a
// server that is not there; a refusal ends it.
func (e *enrolment) join(ctx context.Context, token attestation.Token) (*svid, error) {
	verify := e.byPin(token.Pin[:])
	secret, unsure := token.SecretText(), false
	for failures := 1; ; failures++ {
		s, err := e.attest(ctx, secret, token.Pin[:], verify)
		if err != nil && unsure && refusal(err) {
			// An attempt whose answer was lost may have spent the token and enrolled
			// our key: then the key is what we are known by.
			if known, keyErr := e.attest(ctx, "", token.Pin[:], verify); !refusal(keyErr) {
				s, err = known, keyErr
			}
		}
		if err == nil {
			return s, nil
		}
		if status.Code(err) == codes.PermissionDenied { // most often the token of an agent that was restarted
			return nil, fmt.Errorf("join %s: %w: %w", e.server, err, errNoToken)
		}
		if refusal(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("join %s: %w", e.server, err)
		}
		unsure = true
		e.log.WarnContext(ctx, "join failed, trying again", slog.String("server", e.server), slog.Any("err", err))
		if !sleep(ctx, retryDelay(failures, 0, rand.Float64())) {
			return nil, fmt.Errorf("join %s: %w; the last attempt: %w", e.server, context.Cause(ctx), err)
		}
	}
}

// renew attests by the host key, when the agent's SVID ended during an outage.
func (e *enrolment) renew(ctx context.Context) (*svid, error) {
	t := e.trust.load()
	return e.attest(ctx, "", t.roots.Pin(), byTrust(e.trust.load, time.Now))
}

// refusal tells an answer of the server's from a failure to get one.
func refusal(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return errors.Is(err, errBadAnswer)
}

// attest is one call of Attest, on a connection of its own: it presents the host
// key and no SVID.
func (e *enrolment) attest(ctx context.Context, secret string, pin []byte, verify serverVerifier) (*svid, error) {
	key, csr, err := newKey()
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	// gRPC calls a failed handshake "unavailable", as if it were worth a retry.
	var impostor atomic.Pointer[error]
	conn, err := dial(e.server, func() *tls.Certificate { return &e.host }, func(cs tls.ConnectionState) error {
		err := verify(cs)
		if err != nil {
			impostor.Store(&err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // its one call is over
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	answer, err := api.NewAgentAPIClient(conn).Attest(ctx, &api.AttestRequest{Token: secret, Csr: csr, Hostname: hostname})
	if why := impostor.Load(); err != nil && why != nil {
		return nil, fmt.Errorf("%w: %w", errBadAnswer, *why)
	}
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	roots, err := identity.ParseRootSet(answer.GetSignedRootSet(), pin)
	if err != nil {
		return nil, fmt.Errorf("%w: root set: %w", errBadAnswer, err)
	}
	if !e.td.IsZero() && e.td != roots.TrustDomain {
		return nil, fmt.Errorf("%w: the server is of trust domain %s, the configuration says %s", errBadAnswer, roots.TrustDomain, e.td)
	}
	t := newTrust(roots)
	s, err := newSVID(ownEntry, answer.GetChain(), key, t, time.Now())
	if err != nil {
		return nil, err
	}
	if _, ok := identity.AgentID(s.id); !ok {
		return nil, fmt.Errorf("%w: %s is not an agent's identity", errBadAnswer, s.id)
	}
	e.metrics.attestations.Inc()
	e.keep(t)
	return s, nil
}

// keep takes a root set unless a newer one is known.
func (e *enrolment) keep(t *trust) {
	e.trust.update(func(old *trust) *trust {
		if old != nil && old.roots.Number >= t.roots.Number {
			return old
		}
		return t
	})
}

// byPin accepts a server before anything is trusted but the pin that came with
// the token: a root in its chain must have the pinned key, and the chain must
// verify under that root alone.
func (e *enrolment) byPin(pin []byte) serverVerifier {
	return func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates {
			sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
			if subtle.ConstantTimeCompare(sum[:], pin) != 1 {
				continue
			}
			td := e.td
			if td.IsZero() {
				id, err := trustDomainOf(cs.PeerCertificates[0])
				if err != nil {
					return err
				}
				td = id
			}
			return verifyServer(cs, td, identity.PoolOf(c), time.Now())
		}
		return errors.New("no certificate that the server sent has the key that the token pins: is it another server's token?")
	}
}

func trustDomainOf(leaf *x509.Certificate) (spiffeid.TrustDomain, error) {
	if len(leaf.URIs) != 1 {
		return spiffeid.TrustDomain{}, errors.New("the server's certificate has no SPIFFE ID")
	}
	id, err := identity.ParseID(leaf.URIs[0].String())
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("the server's certificate: %w", err)
	}
	return id.TrustDomain(), nil
}

// dial opens a connection to the server that shows the certificate of the moment
// at each handshake. Both sides are verified in full each time: there is no
// session cache, so nothing is ever resumed.
func dial(server string, certificate func() *tls.Certificate, verify serverVerifier) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+server,
		grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(certificate, verify))),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryFirst, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A server that is stopped and not closed is noticed within 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	return conn, nil
}

// clientTLS is the agent's side of every handshake with a server.
func clientTLS(certificate func() *tls.Certificate, verify serverVerifier) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain is verified below, as a SPIFFE ID and not as a host name.
		InsecureSkipVerify: true, //nolint:gosec // replaced by VerifyConnection
		VerifyConnection:   verify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := certificate(); c != nil {
				return c, nil
			}
			return nil, errors.New("the agent's own SVID has ended")
		},
	}
}

// sleep waits for d; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
