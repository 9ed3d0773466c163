package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/retry"
)

// dial opens a connection to the server that shows the certificate of the moment
// at each handshake. Both sides are verified in full each time: there is no
// session cache, so nothing is ever resumed.
func dial(server string, of instance, certificate func() *tls.Certificate, verify serverVerifier) (*Line, error) {
	l := &Line{}
	conn, err := grpc.NewClient("passthrough:///"+server, append(ads.DialOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(certificate, verify))),
		grpc.WithContextDialer(l.dial),
		grpc.WithConnectParams(retry.Policy{First: svids.Asking.First, Most: 5 * time.Second, Jitter: 0.3}.Connect(5*time.Second)),
		grpc.WithPerRPCCredentials(of),
		// A server that is stopped and not closed is noticed within 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	l.conn = conn
	return l, nil
}

// Line is a connection to the server. gRPC keeps what it runs over for as long as that
// stands, whatever becomes of the certificate that was shown when it was made.
type Line struct {
	conn *grpc.ClientConn

	mu   sync.Mutex
	over net.Conn // the last that was made; nil before; guarded by mu
}

// Conn is the connection for calls.
func (l *Line) Conn() *grpc.ClientConn { return l.conn }

// Close ends it for good.
func (l *Line) Close() error { return l.conn.Close() }

func (l *Line) dial(ctx context.Context, addr string) (net.Conn, error) {
	over, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = over
	return over, nil
}

// Cut ends what it runs over, if there is anything. gRPC makes the next, with the certificate
// of that moment.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil {
		_ = l.over.Close() // it may have ended
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
