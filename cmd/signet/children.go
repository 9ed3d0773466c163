package main

import (
	"github.com/spf13/cobra"

	"signet.example/agent"
	"signet.example/server"
)

// The two processes that server and agent start from this same binary, on
// sockets that they inherit. They are not for the command line.

func newSigner() *cobra.Command {
	c := &cobra.Command{Use: "signer", Hidden: true, Args: cobra.NoArgs}
	var cfg server.SignerConfig
	c.Flags().StringVar(&cfg.DataDir, "data-dir", "", "the server's data folder")
	c.Flags().StringVar(&cfg.PasswordFile, "password-file", "", "password of the key files")
	logFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logOf(c)
		if err != nil {
			return err
		}
		cfg.Log = log
		conn, err := server.SignerConn()
		if err != nil {
			return hinted(err, "this process is started by `signet server`")
		}
		return stopped(c.Context(), server.RunSigner(c.Context(), cfg, conn))
	}
	return c
}

func newAuthz() *cobra.Command {
	c := &cobra.Command{Use: "authz", Hidden: true, Args: cobra.NoArgs}
	logFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logOf(c)
		if err != nil {
			return err
		}
		return stopped(c.Context(), agent.RunAuthz(c.Context(), log))
	}
	return c
}
