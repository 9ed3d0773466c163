package join

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
)

const attestTimeout = 10 * time.Second

// errNothingToShow is that of a host that reached its server, and asked it nothing for want of evidence.
var errNothingToShow = errors.New("this host has nothing to show")

// attest is one call of Attest, on a connection of its own: it presents the host
// key and no SVID. Without evidence the key is what the host is known by.
func (e *Enrolment) attest(ctx context.Context, evidence nodes.Evidence, pin []byte, verify serverVerifier) (*svids.SVID, error) {
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
	e.config.Attested.Inc()
	e.keep(t, id)
	return s, nil
}

// call makes a connection and calls on it, with evidence that is good on this one
// alone. So it is made before gRPC has it, which would make another at will.
func (e *Enrolment) call(ctx context.Context, verify serverVerifier, evidence nodes.Evidence, req *api.AttestRequest) (*api.AttestResponse, error) {
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
		if err := evidence(ctx, on, req); err != nil {
			return nil, fmt.Errorf("attest: %w: %w", errNothingToShow, err)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+e.config.Server, grpc.WithTransportCredentials(shaken{insecure.NewCredentials()}),
		grpc.WithContextDialer(once(made)), grpc.WithPerRPCCredentials(e.instance))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.config.Server, err)
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
func (e *Enrolment) handshake(ctx context.Context, verify serverVerifier) (*tls.Conn, error) {
	var impostor error
	cfg := clientTLS(func() *tls.Certificate { return &e.host }, func(cs tls.ConnectionState) error {
		impostor = verify(cs)
		return impostor
	})
	cfg.NextProtos = []string{"h2"}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", e.config.Server)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.config.Server, err)
	}
	made := tls.Client(raw, cfg)
	if err := made.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // nothing was sent
		if impostor != nil {
			return nil, fmt.Errorf("%w: %w", svids.ErrBadAnswer, impostor)
		}
		return nil, fmt.Errorf("connect to %s: %w", e.config.Server, err)
	}
	return made, nil
}

// channel is the connection as evidence is bound to it.
func (e *Enrolment) channel(cs tls.ConnectionState) (nodes.Channel, error) {
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
