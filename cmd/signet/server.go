package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/server"
)

func newServer() *cobra.Command {
	c := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane",
		Long: `Runs the control plane on the folder that signet init made: it signs, keeps
the registry and the mesh, fetches and tests policies, and gives agents what
they must know. Flags win over the file, the file over the defaults.`,
		Example: `  signet server
  signet server --config /etc/signet/server.yaml
  signet server --config /etc/signet/server.yaml --check`,
		Args: cobra.NoArgs,
	}
	logFlags(c)
	file := c.Flags().String("config", "", "YAML file")
	check := c.Flags().Bool("check", false, "check the configuration and end")
	dir := c.Flags().String("data-dir", defaultDataDir(), "folder that signet init made")
	listen := c.Flags().String("listen", "", "address for agents (default 127.0.0.1:8443)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg := server.DefaultConfig()
		cfg.DataDir = *dir
		if err := readConfig(*file, &cfg); err != nil {
			return err
		}
		set(c, "data-dir", &cfg.DataDir, *dir)
		set(c, "listen", &cfg.Listen, *listen)
		cfg = cfg.Complete()
		if err := cfg.Validate(); err != nil {
			return hinted(err, "see the keys in docs/CONFIGURATION.md")
		}
		if *check {
			_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is good")
			return err
		}
		log, err := logOf(c)
		if err != nil {
			return err
		}
		return stopped(c.Context(), server.Run(c.Context(), cfg, log))
	}
	return c
}
