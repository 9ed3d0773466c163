package attestation

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// PeerInfo is the AuthInfo of a connection that Credentials accepted.
type PeerInfo struct {
	credentials.CommonAuthInfo
	Peer *Peer
}

// AuthType implements credentials.AuthInfo.
func (PeerInfo) AuthType() string { return "signet-peer" }

// Credentials returns transport credentials for a gRPC server on a Unix
// socket. A connection whose peer cannot be attested ends before its first
// byte is read. The Peer is closed with the connection; an RPC that outlives
// it gets ErrClosed.
func (a *Attestor) Credentials() credentials.TransportCredentials { return peerCredentials{a} }

// PeerFromContext returns the peer of the RPC whose context this is.
func PeerFromContext(ctx context.Context) (*Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	info, ok := p.AuthInfo.(PeerInfo)
	return info.Peer, ok && info.Peer != nil
}

type peerCredentials struct{ attestor *Attestor }

// ServerHandshake attests the peer. gRPC closes conn when it fails.
func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("attest peer: connection of type %T: want a Unix socket", conn)
	}
	p, err := c.attestor.Peer(uc)
	if err != nil {
		return nil, nil, err
	}
	info := PeerInfo{Peer: p}
	info.SecurityLevel = credentials.PrivacyAndIntegrity // nobody except the kernel is between
	return &peerConn{UnixConn: uc, peer: p}, info, nil
}

// ClientHandshake is refused: these credentials are a server's.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("attestation credentials are for servers only")
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "signet-peer"}
}

// Clone implements credentials.TransportCredentials.
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

// peerConn closes the peer with the connection, so that no pidfd outlives it.
type peerConn struct {
	*net.UnixConn
	peer *Peer
}

// Close closes both.
func (c *peerConn) Close() error { return errors.Join(c.UnixConn.Close(), c.peer.Close()) }
