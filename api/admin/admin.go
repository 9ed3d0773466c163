// Package admin connects to a server's admin socket. It is apart from api so that who
// reads and writes messages does not get sockets along.
package admin

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/internal/unixsock"
)

// maxAdminMessage bounds an answer of the admin socket: a mesh of 10,000
// resources fits many times over.
const maxAdminMessage = 64 << 20

// Dial connects to a server's admin socket. Each side looks at the other's
// user, as the kernel tells it: the server at who may operate it, we at who may be
// the server (unixsock.TrustedListener). Nothing is sent before the first call, so
// a missing socket and an impostor show there, as codes.Unavailable.
func Dial(socket string) (api.AdminClient, *grpc.ClientConn, error) {
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, nil, fmt.Errorf("admin socket %s: %w", socket, err)
	}
	conn, err := grpc.NewClient("passthrough:///localhost", // HTTP/2 wants an authority, and a path is none
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
		grpc.WithUnaryInterceptor(api.ReconcileAnswer), grpc.WithStreamInterceptor(api.ReconcileStream),
		grpc.WithTransportCredentials(unixsock.Credentials(unixsock.TrustedListener(path))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAdminMessage), grpc.MaxCallSendMsgSize(maxAdminMessage)))
	if err != nil {
		return nil, nil, fmt.Errorf("admin socket %s: %w", socket, err)
	}
	return api.NewAdminClient(conn), conn, nil
}
