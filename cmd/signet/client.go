package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/api/admin"
	"signet.example/internal/unixsock"
)

// defaultDataDir is the server's folder where nothing else is said.
func defaultDataDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/signet"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "signet")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "signet-data"
	}
	return filepath.Join(home, ".local", "state", "signet")
}

func socketFlag(c *cobra.Command) {
	c.Flags().String("socket", filepath.Join(defaultDataDir(), "admin.sock"), "the server's admin socket")
}

// withAdmin runs f with a client of the server's admin socket.
func withAdmin(c *cobra.Command, f func(api.AdminClient) error) error {
	socket, _ := c.Flags().GetString("socket")
	if err := tryDial(socket); err != nil {
		return wrongSocket(c.Context(), socket, nil, err)
	}
	client, conn, err := admin.Dial(socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // a client connection: nothing is lost
	return wrongSocket(c.Context(), socket, client, f(client))
}

// otherSockets are what else of ours listens on a Unix socket, by name.
var otherSockets = map[string]string{
	"signer.sock":   "the signer's socket, on which it serves the server alone",
	"xds.sock":      "an agent's xDS socket, for Envoys",
	"workload.sock": "an agent's Workload API, for applications",
	"authz.sock":    "an agent's authorization socket, for Envoys",
	"local.sock":    "the socket on which an agent is asked about processes, by signet workload",
	"wayout.sock":   "the socket on which an agent tells Envoys who may call out",
}

// wrongSocket names what was called where a call failed since --socket is not an admin socket:
// gRPC alone says only that something is not known, or that nobody answered. A server of a
// release that does not have the call is named as that. client is nil where nothing could be called.
func wrongSocket(ctx context.Context, socket string, client api.AdminClient, err error) error {
	if err == nil {
		return nil
	}
	what, known := otherSockets[filepath.Base(socket)]
	refused := exitCode(err) == exitUnreachable || exitCode(err) == exitDenied
	info, statErr := os.Stat(socket)
	switch {
	case statErr != nil:
		return err
	case info.IsDir():
		what = "a folder"
	case info.Mode()&fs.ModeSocket == 0:
		what = "a file that is not a socket"
	case known && (refused || status.Code(err) == codes.Unimplemented):
	case refused && client != nil && speaksHTTP1(socket):
		what = "a socket that speaks HTTP/1.1, as Envoy's own admin interface does"
	case status.Code(err) == codes.Unimplemented && !isAdmin(ctx, client):
		what = "a socket of another program"
	case status.Code(err) == codes.Unimplemented:
		return hinted(fmt.Errorf("the server is of a release before this command's, and does not have what it asks for: %w", err), "upgrade the server")
	default:
		return err
	}
	return &exitError{
		err: fmt.Errorf("%s is %s, and not the admin socket of a server", socket, what), code: exitUsage,
		hint: "name the server's with --socket or SIGNET_SOCKET: <data-dir>/admin.sock, or its admin_socket",
	}
}

// speaksHTTP1 reports whether what listens on a socket answers the beginning of HTTP/2
// (RFC 9113 3.4) in HTTP/1.
func speaksHTTP1(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second) //nolint:noctx // bounded
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	const first = "HTTP/1."
	var answer [len(first)]byte
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	if err == nil {
		_, err = io.ReadFull(conn, answer[:])
	}
	return err == nil && string(answer[:]) == first
}

// isAdmin reports whether an admin socket answers, of whatever release: each knows Explain,
// and refuses one of nothing before it looks at anything. What is left of it is in the audit trail.
func isAdmin(ctx context.Context, client api.AdminClient) bool {
	if client == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := client.Explain(ctx, &api.ExplainRequest{})
	return status.Code(err) != codes.Unimplemented
}

// tryDial has an error of its own for a server that is not there, one that is another
// user's, and an impostor, before gRPC wraps and retries any of them.
func tryDial(socket string) error {
	conn, err := net.DialTimeout("unix", socket, 5*time.Second) //nolint:noctx // bounded
	if err == nil {
		defer func() { _ = conn.Close() }() // nothing is said on it
		peer, err := unixsock.PeerOf(conn)
		if err == nil {
			err = unixsock.TrustedListener(socket)(peer)
		}
		if err != nil {
			return &exitError{err: err, code: exitDenied}
		}
		return nil
	}
	var cause syscall.Errno
	if !errors.As(err, &cause) {
		return &exitError{err: fmt.Errorf("no server answers on %s: %w", socket, err), code: exitUnreachable}
	}
	if errors.Is(cause, fs.ErrPermission) {
		return &exitError{
			err: fmt.Errorf("%s: %w", socket, cause), code: exitDenied,
			hint: "the admin socket is for the server's own user and root: run this as one of them",
		}
	}
	return &exitError{
		err: fmt.Errorf("no server answers on %s: %w", socket, cause), code: exitUnreachable,
		hint: "start one with `signet server`, or name its socket with --socket or SIGNET_SOCKET: <data-dir>/admin.sock",
	}
}
