package unixsock

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// Peer is who is at the other end of a Unix socket, as the kernel says: of a
// caller the process that called connect(2), of a listener the one that called
// listen(2).
type Peer struct {
	credentials.CommonAuthInfo
	UID uint32
	PID int32
}

// AuthType implements credentials.AuthInfo.
func (Peer) AuthType() string { return "so_peercred" }

// PeerOf returns the peer of a connected Unix socket.
func PeerOf(c net.Conn) (Peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var peer Peer
	var inner error
	if err := raw.Control(func(fd uintptr) { peer, inner = peerOf(int(fd)) }); err != nil {
		return Peer{}, err
	}
	return peer, inner
}

func peerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	peer := Peer{UID: cred.Uid, PID: cred.Pid}
	peer.SecurityLevel = credentials.PrivacyAndIntegrity // it never leaves the kernel
	return peer, nil
}

// Credentials returns gRPC transport credentials for either side of a Unix
// socket. Nothing is read or written where allow refuses the peer. allow is called
// from several goroutines.
func Credentials(allow func(Peer) error) credentials.TransportCredentials {
	return peerCredentials{allow}
}

type peerCredentials struct{ allow func(Peer) error }

func (p peerCredentials) handshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := PeerOf(c)
	if err != nil {
		return nil, nil, err
	}
	if err := p.allow(peer); err != nil {
		return nil, nil, err
	}
	return c, peer, nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (p peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.handshake(c)
}

// ClientHandshake implements credentials.TransportCredentials.
func (p peerCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return p.handshake(c)
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "so_peercred"}
}

// Clone implements credentials.TransportCredentials.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }
