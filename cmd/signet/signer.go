package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/server/signer"
)

func newSigner() *cobra.Command {
	c := &cobra.Command{
		Use:   "signer",
		Short: "Run the signer as a service of its own user",
		Long: `Runs the process that owns the issuing key and the issuance log, on a socket
that only the server's user is served on. It refuses to start where that user
could read its key, password or log. docs/SIGNER.md has the units of both.
Without a socket it is the server's child: then the server starts it.`,
		Example: `  signet signer --data-dir /var/lib/signet-signer --listen /run/signet-signer/signer.sock --server-user signet
  signet signer --config /etc/signet/signer.yaml
  signet signer --config /etc/signet/signer.yaml --check`,
		Args: noArgs,
	}
	logFlags(c)
	path := c.Flags().String("config", "", "YAML file")
	check := c.Flags().Bool("check", false, "check the configuration and what a start needs of this host, and end")
	var given signer.Config
	c.Flags().StringVar(&given.DataDir, "data-dir", "", "folder that signet init --signer-dir made")
	c.Flags().StringVar(&given.PasswordFile, "password-file", "", "password of the key files (default <data-dir>/password)")
	c.Flags().StringVar(&given.Listen, "listen", "", "path of the socket that the server connects to")
	c.Flags().StringVar(&given.ServerUser, "server-user", "", "the user that the server runs as, by name or uid")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var cfg signer.Config
		file, err := readConfig(*path, &cfg)
		if err != nil {
			return err
		}
		file.set(c, "data-dir", &cfg.DataDir, given.DataDir)
		file.set(c, "password-file", &cfg.PasswordFile, given.PasswordFile)
		file.set(c, "listen", &cfg.Listen, given.Listen)
		file.set(c, "server-user", &cfg.ServerUser, given.ServerUser)
		log, err := logOf(c)
		if err != nil {
			return err
		}
		cfg.Log = log
		if cfg.Listen == "" && *path == "" && !*check {
			return runSignerChild(c, cfg)
		}
		cfg = cfg.Complete()
		if err := file.check(cfg.Validate()); err != nil {
			return err
		}
		if *check {
			if err := signer.Check(c.Context(), cfg); err != nil {
				return byOwner(err, false)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is good")
			return err
		}
		return byOwner(stopped(c.Context(), signer.Serve(c.Context(), cfg)), false)
	}
	return c
}

// runSignerChild serves the socket that `signet server` started this process with.
func runSignerChild(c *cobra.Command, cfg signer.Config) error {
	if err := startedBy(c, "signet server"); err != nil {
		return &exitError{err: err, code: exitUsage, hint: "run signet server; as a service of its own user the signer needs --config, or --data-dir, --listen and --server-user"}
	}
	conn, err := signer.Inherited()
	if err != nil {
		return err
	}
	return stopped(c.Context(), signer.Run(c.Context(), cfg, conn))
}
