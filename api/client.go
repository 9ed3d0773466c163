package api

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// maxAdminMessage bounds an answer of the admin socket: a mesh of 10,000
// resources fits many times over.
const maxAdminMessage = 64 << 20

// DialAdmin connects to a server's admin socket. The socket itself is the
// credential: the server looks at the peer's uid. Nothing is sent before the
// first call, so a missing socket shows there, as codes.Unavailable.
func DialAdmin(socket string) (AdminClient, *grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAdminMessage), grpc.MaxCallSendMsgSize(maxAdminMessage)))
	if err != nil {
		return nil, nil, fmt.Errorf("admin socket %s: %w", socket, err)
	}
	return NewAdminClient(conn), conn, nil
}
