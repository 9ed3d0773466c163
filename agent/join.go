package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
	"signet.example/agent/upstream"
	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

const attestTimeout = 10 * time.Second

// enrolment is the agent's standing with the servers: the host key that it
// joined with, and what it trusts since. Both are kept in data_dir.
type enrolment struct {
	server string
	td     spiffeid.TrustDomain // zero: learned from the join
	host   tls.Certificate
	// earlier is true where the host key is that of an earlier run.
	earlier bool
	dir     *dataDir
	// instance tells this run of the agent from others with the same host key.
	instance string
	log      *slog.Logger
	metrics  *metrics

	// trust is nil before the first answer of a server.
	trust watched.Value[*svids.Trust]

	mu   sync.Mutex
	kept kept // guarded by mu
}

func newEnrolment(cfg Config, dir *dataDir, m *metrics, log *slog.Logger) (*enrolment, error) {
	e := &enrolment{server: cfg.Server, dir: dir, instance: crand.Text(), log: log, metrics: m}
	var err error
	if cfg.TrustDomain != "" {
		if e.td, err = spiffeid.TrustDomainFromString(cfg.TrustDomain); err != nil {
			return nil, fmt.Errorf("trust_domain: %w", err)
		}
	}
	key, k, err := dir.load()
	if err != nil {
		return nil, err
	}
	if key == nil {
		e.host, err = newHostKey(time.Now())
		return e, err
	}
	if e.host, err = hostCertificate(key, time.Now()); err != nil {
		return nil, err
	}
	e.earlier, e.kept = true, k
	if k.RootSet == "" {
		return e, nil
	}
	t, err := svids.ParseTrust([]byte(k.RootSet), k.Pin)
	if err != nil {
		return nil, err
	}
	if !e.td.IsZero() && e.td != t.Roots.TrustDomain {
		return nil, fmt.Errorf("trust_domain: the configuration says %s, and this host joined %s: correct one, or move %s away and join anew",
			e.td, t.Roots.TrustDomain, dir.path)
	}
	e.trust.Set(t)
	return e, nil
}

// enter returns the agent's first SVID. A host that joined before is known by its
// key, and re-anchored by the root set that it kept: it needs no token, and spends
// none. It waits for a server that is not there; a refusal ends it.
func (e *enrolment) enter(ctx context.Context, source ways) (*svids.SVID, error) {
	began, joined := len(e.kept.Pin) > 0, e.kept.AgentID != ""
	if joined {
		s, err := e.comeBack(ctx)
		if err == nil && source.tokens.given() {
			e.log.InfoContext(ctx, "this host has joined already: the token was not used and stays good", slog.String("agent", e.kept.AgentID))
		}
		if err == nil || status.Code(err) != codes.Unauthenticated {
			return s, err
		}
		e.log.WarnContext(ctx, "this host is not known any more", slog.Any("err", err))
	}
	how, err := source.read()
	switch {
	case errors.Is(err, ErrNoToken) && began && !joined: // it ended while it joined
		return e.comeBack(ctx)
	case err != nil:
		return nil, err
	case joined && !bytes.Equal(how.pin, e.kept.Pin):
		return nil, &TokenError{fmt.Errorf("the token, or the root in trust, is of another trust domain than %s, to which %s belongs: move that away, and join as a new agent",
			e.trust.Load().Roots.TrustDomain, e.dir.path)}
	case !joined:
		key, ok := e.host.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("internal error: a host key of type %T", e.host.PrivateKey)
		}
		if e.kept, err = e.dir.begin(key, how.pin); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
	}
	return e.join(ctx, how, e.earlier && !joined)
}

// join gives what the host joins by, which spends a token. Where it is unsure whether an earlier attempt spent it
// and enrolled our key, the key is what we may be known by.
func (e *enrolment) join(ctx context.Context, how way, unsure bool) (*svids.SVID, error) {
	verify := e.byPin(how.pin)
	s, err := e.untilAnswered(ctx, func() (*svids.SVID, error) {
		s, err := e.attest(ctx, how.evidence, how.pin, verify)
		if err != nil && unsure && refusal(err) {
			if known, keyErr := e.attest(ctx, nil, how.pin, verify); !refusal(keyErr) {
				s, err = known, keyErr
			}
		}
		unsure = true // the next attempt
		return s, err
	})
	if errors.Is(err, errPin) {
		err = fmt.Errorf("%w: %w", err, how.elsewhere)
	}
	if status.Code(err) == codes.PermissionDenied {
		return nil, fmt.Errorf("join %s: %w: %w", e.server, err, how.refused)
	}
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", e.server, err)
	}
	return s, nil
}

// comeBack attests by the host key of an earlier run.
func (e *enrolment) comeBack(ctx context.Context) (*svids.SVID, error) {
	s, err := e.untilAnswered(ctx, func() (*svids.SVID, error) { return e.renew(ctx) })
	switch {
	case upstream.Banned(err):
		return nil, fmt.Errorf("attest to %s: %w: move %s away, and start the agent with one of these", e.server, err, e.dir.path)
	case upstream.Elsewhere(err):
		return nil, fmt.Errorf("attest to %s: %w: if %s is a copy of another host's, move it away and join this host as a new agent with a new token, or a certificate for a key of its own; if this is the right host, ban the agent: its key was stolen",
			e.server, err, e.dir.path)
	case status.Code(err) == codes.Unauthenticated:
		return nil, fmt.Errorf("attest to %s: %w: %w", e.server, err, ErrNoToken)
	case err != nil:
		return nil, fmt.Errorf("attest to %s: %w", e.server, err)
	}
	return s, nil
}

// untilAnswered repeats attempt until a server has answered, one way or the other.
func (e *enrolment) untilAnswered(ctx context.Context, attempt func() (*svids.SVID, error)) (*svids.SVID, error) {
	for tries := (retry.Tries{Policy: svids.Asking}); ; {
		s, err := attempt()
		if err == nil || refusal(err) || ctx.Err() != nil {
			return s, err
		}
		e.log.WarnContext(ctx, "no server answers, trying again", slog.String("server", e.server), slog.Any("err", err))
		if !watched.Sleep(ctx, tries.Failed(0, err)) {
			return nil, fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), err)
		}
	}
}

// renew attests by the host key: at a start, and when the agent's SVID ended
// during an outage.
func (e *enrolment) renew(ctx context.Context) (*svids.SVID, error) {
	if t := e.trust.Load(); t != nil {
		return e.attest(ctx, nil, t.Roots.Pin(), byTrust(e.trust.Load, time.Now))
	}
	return e.attest(ctx, nil, e.kept.Pin, e.byPin(e.kept.Pin)) // it ended while it joined
}

// refusal tells an answer of the server's from a failure to get one.
func refusal(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return errors.Is(err, svids.ErrBadAnswer)
}

// attest is one call of Attest, on a connection of its own: it presents the host
// key and no SVID. Without evidence the key is what the host is known by.
func (e *enrolment) attest(ctx context.Context, evidence nodes.Evidence, pin []byte, verify serverVerifier) (*svids.SVID, error) {
	key, csr, err := svids.NewKey()
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	answer, err := e.call(ctx, verify, evidence, &api.AttestRequest{Csr: csr, Hostname: hostname})
	if err != nil {
		return nil, err
	}
	t, err := svids.ParseTrust(answer.GetSignedRootSet(), pin)
	if err != nil {
		return nil, fmt.Errorf("%w: root set: %w", svids.ErrBadAnswer, err)
	}
	if !e.td.IsZero() && e.td != t.Roots.TrustDomain {
		return nil, fmt.Errorf("%w: the server is of trust domain %s, the configuration says %s", svids.ErrBadAnswer, t.Roots.TrustDomain, e.td)
	}
	s, err := svids.New(svids.Own, answer.GetChain(), key, t, time.Now())
	if err != nil {
		return nil, err
	}
	id, ok := identity.AgentID(s.ID)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not an agent's identity", svids.ErrBadAnswer, s.ID)
	}
	e.metrics.attestations.Inc()
	e.keep(t, id)
	return s, nil
}

// call makes a connection and calls on it, with evidence that is good on this one
// alone. So it is made before gRPC has it, which would make another at will.
func (e *enrolment) call(ctx context.Context, verify serverVerifier, evidence nodes.Evidence, req *api.AttestRequest) (*api.AttestResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	made, err := e.handshake(ctx, verify)
	if err != nil {
		return nil, err
	}
	defer func() { _ = made.Close() }() // its one call is over
	if evidence != nil {
		on, err := e.channel(made.ConnectionState())
		if err != nil {
			return nil, fmt.Errorf("attest: %w", err)
		}
		if err := evidence(on, req); err != nil {
			return nil, fmt.Errorf("attest: %w", err)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+e.server, grpc.WithTransportCredentials(shaken{insecure.NewCredentials()}),
		grpc.WithContextDialer(once(made)), grpc.WithPerRPCCredentials(instance(e.instance)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.server, err)
	}
	defer func() { _ = conn.Close() }() // its one call is over
	answer, err := api.NewAgentAPIClient(conn).Attest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	return answer, nil
}

// handshake connects to the server as this host. That it is another server than it should
// be is svids.ErrBadAnswer: no retry makes it the right one.
func (e *enrolment) handshake(ctx context.Context, verify serverVerifier) (*tls.Conn, error) {
	var impostor error
	cfg := clientTLS(func() *tls.Certificate { return &e.host }, func(cs tls.ConnectionState) error {
		impostor = verify(cs)
		return impostor
	})
	cfg.NextProtos = []string{"h2"}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", e.server)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.server, err)
	}
	made := tls.Client(raw, cfg)
	if err := made.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // nothing was sent
		if impostor != nil {
			return nil, fmt.Errorf("%w: %w", svids.ErrBadAnswer, impostor)
		}
		return nil, fmt.Errorf("connect to %s: %w", e.server, err)
	}
	return made, nil
}

// channel is the connection as evidence is bound to it.
func (e *enrolment) channel(cs tls.ConnectionState) (nodes.Channel, error) {
	td, err := trustDomainOf(cs.PeerCertificates[0]) // of a chain that was verified
	if err != nil {
		return nodes.Channel{}, err
	}
	host, err := x509.ParseCertificate(e.host.Certificate[0])
	if err != nil {
		return nodes.Channel{}, err
	}
	sum := sha256.Sum256(host.RawSubjectPublicKeyInfo)
	return nodes.Channel{TrustDomain: td, HostKey: sum[:], TLS: cs}, nil
}

// once dials a connection that is there already, and no other one.
func once(made net.Conn) func(context.Context, string) (net.Conn, error) {
	var used atomic.Bool
	return func(context.Context, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("the connection to the server has ended")
		}
		return made, nil
	}
}

// shaken are the credentials of a connection whose handshake is done.
type shaken struct {
	credentials.TransportCredentials
}

// ClientHandshake implements credentials.TransportCredentials.
func (shaken) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	made, ok := c.(*tls.Conn)
	if !ok {
		return nil, nil, fmt.Errorf("internal error: a connection of type %T", c)
	}
	return c, credentials.TLSInfo{
		State: made.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// Info implements credentials.TransportCredentials: instance is sent over TLS only.
func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (s shaken) Clone() credentials.TransportCredentials {
	return shaken{s.TransportCredentials.Clone()}
}

// keep takes a root set unless a newer one is known, and writes down what this
// host is known by where that has changed.
func (e *enrolment) keep(t *svids.Trust, agentID string) {
	e.trust.Update(func(old *svids.Trust) *svids.Trust {
		if old != nil && old.Roots.Number >= t.Roots.Number {
			return old
		}
		return t
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.kept
	next.AgentID, next.RootSet = agentID, string(e.trust.Load().Signed)
	if next.AgentID == e.kept.AgentID && next.RootSet == e.kept.RootSet {
		return
	}
	if err := e.dir.save(next); err != nil { // what is kept still finds the way back, by older roots or by the pin
		e.log.Error("standing not written", slog.String("data_dir", e.dir.path), slog.Any("err", err))
		return
	}
	e.kept = next
}

// errPin: the server is another one than the token, or the root in trust, is of.
var errPin = errors.New("no certificate that the server sent has the key that is pinned")

// byPin accepts a server while nothing is trusted except the pin that came with
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
		return errPin
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
func (e *enrolment) dial(l *line, certificate func() *tls.Certificate, verify serverVerifier) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+e.server,
		grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(certificate, verify))),
		grpc.WithContextDialer(l.dial),
		grpc.WithConnectParams(retry.Policy{First: svids.Asking.First, Most: 5 * time.Second, Jitter: 0.3}.Connect(5*time.Second)),
		grpc.WithPerRPCCredentials(instance(e.instance)),
		// A server that is stopped and not closed is noticed within 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.server, err)
	}
	return conn, nil
}

// line is what a connection to the server runs over. gRPC keeps one for as long as
// it stands, whatever becomes of the certificate that was shown when it was made.
type line struct {
	mu   sync.Mutex
	conn net.Conn // the last that was made; nil before
}

func (l *line) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	return conn, nil
}

// cut ends the connection, if there is one. gRPC makes the next, with the certificate
// of that moment.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close() // it may have ended
	}
}

// clientTLS is the agent's side of every handshake with a server.
func clientTLS(certificate func() *tls.Certificate, verify serverVerifier) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: identity.KeyExchanges(),
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

// instance is sent with each call, over TLS only.
type instance string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (i instance) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{api.InstanceHeader: string(i)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (instance) RequireTransportSecurity() bool { return true }

// agentID is the agent's id as it is kept.
func (e *enrolment) agentID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.kept.AgentID
}
