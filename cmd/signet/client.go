package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"signet.example/api"
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

// socketFlag adds --socket: flag > SIGNET_SOCKET > the default data folder's.
func socketFlag(c *cobra.Command) {
	c.Flags().String("socket", "", "the server's admin socket (SIGNET_SOCKET; default "+filepath.Join(defaultDataDir(), "admin.sock")+")")
}

func socketOf(c *cobra.Command) string {
	if s, _ := c.Flags().GetString("socket"); s != "" {
		return s
	}
	if s := os.Getenv("SIGNET_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(defaultDataDir(), "admin.sock")
}

// withAdmin runs f with a client of the server's admin socket.
func withAdmin(c *cobra.Command, f func(api.AdminClient) error) error {
	client, conn, err := api.DialAdmin(socketOf(c))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // a client connection: nothing is lost
	return f(client)
}
