package server

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// peerCredentials are the transport credentials of a Unix socket: the kernel
// says which user is at the other end, and allow decides. What a listener says
// of itself is the user that called listen(2); a caller, connect(2).
type peerCredentials struct {
	allow func(unixPeer) error
}

// unixPeer is who is at the other end of a Unix socket, as the kernel says.
type unixPeer struct {
	credentials.CommonAuthInfo
	uid uint32
	pid int32
}

// AuthType implements credentials.AuthInfo.
func (unixPeer) AuthType() string { return "so_peercred" }

func (p peerCredentials) handshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := peerOf(c)
	if err != nil {
		return nil, nil, err
	}
	if err := p.allow(peer); err != nil {
		return nil, nil, err
	}
	return c, peer, nil
}

func peerOf(c net.Conn) (unixPeer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return unixPeer{}, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return unixPeer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return unixPeer{}, err
	}
	if credErr != nil {
		return unixPeer{}, credErr
	}
	peer := unixPeer{uid: cred.Uid, pid: cred.Pid}
	peer.SecurityLevel = credentials.PrivacyAndIntegrity // it never leaves the kernel
	return peer, nil
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
