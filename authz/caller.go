package authz

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Caller is the attested proxy at the other end of a connection. Destination
// is who it is the proxy of: the destination of every request that it asks
// about, whatever the request says.
type Caller struct {
	Destination spiffeid.ID
	Proxy       string
}

// CallerFromContext returns the caller of the gRPC connection, which Credentials put
// there.
func CallerFromContext(ctx context.Context) (Caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, false
	}
	info, ok := p.AuthInfo.(callerInfo)
	return info.caller, ok && !info.caller.Destination.IsZero()
}

// NewConn returns c as a connection of the caller, who was attested before.
func NewConn(c net.Conn, caller Caller) net.Conn { return &callerConn{Conn: c, caller: caller} }

type callerConn struct {
	net.Conn
	caller Caller
}

type callerInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType implements credentials.AuthInfo.
func (callerInfo) AuthType() string { return "signet-attested" }

// Credentials are the gRPC server's: they accept only connections of NewConn
// and carry its Caller to Check. There is no handshake: the peer was attested
// by the process that accepted the connection.
func Credentials() credentials.TransportCredentials { return attested{} }

type attested struct{}

var errNotAttested = errors.New("authz: connection of an unattested peer")

// ServerHandshake implements credentials.TransportCredentials.
func (attested) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cc, ok := c.(*callerConn)
	if !ok {
		return nil, nil, fmt.Errorf("%w (%T)", errNotAttested, c)
	}
	level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity} // a Unix socket
	return cc, callerInfo{CommonAuthInfo: level, caller: cc.caller}, nil
}

// ClientHandshake implements credentials.TransportCredentials; there is no client side.
func (attested) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("authz: credentials are for servers only")
}

// Info implements credentials.TransportCredentials.
func (attested) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "signet-attested"}
}

// Clone implements credentials.TransportCredentials.
func (attested) Clone() credentials.TransportCredentials { return attested{} }

// OverrideServerName implements credentials.TransportCredentials.
func (attested) OverrideServerName(string) error { return nil }
