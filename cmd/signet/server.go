package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"signet.example/internal/private"
	"signet.example/server"
)

func newServer() *cobra.Command {
	c := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane",
		Long: `Runs the control plane on the folder that signet init made: it signs, keeps
the registry and the mesh, fetches and tests policies, and gives agents what
they must know. Flags win over the environment, that over the file.`,
		Example: `  signet server
  signet server --config /etc/signet/server.yaml
  signet server --config /etc/signet/server.yaml --check`,
		Args: noArgs,
	}
	logFlags(c)
	path := c.Flags().String("config", "", "YAML file")
	check := c.Flags().Bool("check", false, "check the configuration and what a start needs of this host, and end")
	dir := c.Flags().String("data-dir", defaultDataDir(), "folder that signet init made")
	listen := c.Flags().String("listen", "", "address for agents (default 127.0.0.1:8443)")
	signer := c.Flags().String("signer", "", "unix:/path of a signer that runs as its own user (default: one is started)")
	accept := c.Flags().String("accept-log", "", "the code of SIG023: go on with an issuance log that lacks records (docs/SIGNER.md)")
	signerUser := c.Flags().String("signer-user", "", "the user that must listen there, by name or uid")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg := server.DefaultConfig()
		cfg.DataDir = *dir
		file, err := readConfig(*path, &cfg)
		if err != nil {
			return err
		}
		file.set(c, "data-dir", &cfg.DataDir, *dir)
		file.set(c, "listen", &cfg.Listen, *listen)
		file.set(c, "signer", &cfg.Signer, *signer)
		file.set(c, "signer-user", &cfg.SignerUser, *signerUser)
		cfg.AcceptLog = *accept
		cfg = cfg.Complete()
		if err := file.check(cfg.Validate()); err != nil {
			return err
		}
		if *check {
			if err := server.Check(c.Context(), cfg); err != nil {
				return serverHint(err, cfg.DataDir)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is good")
			return err
		}
		log, err := logOf(c)
		if err != nil {
			return err
		}
		clearEnv()
		return serverHint(stopped(c.Context(), server.Run(c.Context(), cfg, log)), cfg.DataDir)
	}
	return c
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// serverHint reports what to do about a start that fails often.
func serverHint(err error, dir string) error {
	switch {
	case errors.As(err, new(*private.ForeignError)):
		return byOwner(err, false)
	case errors.Is(err, syscall.EADDRINUSE):
		return hinted(err, "another program, or another server, has this port: choose with --listen, or with the key metrics of the configuration file")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return hinted(err, "this machine does not have that address: choose with --listen")
	case errors.As(err, new(*net.DNSError)):
		return hinted(err, "the name has no address: choose with --listen, or with the key metrics of the configuration file")
	case errors.Is(err, fs.ErrNotExist) && missing(dir):
		return hinted(err, "make the folder with: signet init --trust-domain <domain> --data-dir "+dir)
	}
	return err
}
