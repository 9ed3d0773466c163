package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"signet.example/api"
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
		return err
	}
	client, conn, err := api.DialAdmin(socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // a client connection: nothing is lost
	return f(client)
}

// tryDial tells a server that is not there from one that is another user's, and
// from an impostor, before gRPC wraps and retries any of them.
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
