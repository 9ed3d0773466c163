package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/agent"
)

func newAgent() *cobra.Command {
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run the node agent of this host",
		Long: `Runs the node agent: it joins the server with a token, makes and keeps the
private keys of this host's workloads, serves Envoys and applications over Unix
sockets, and starts the Envoys it is told to. It goes on when the server is gone.
The host key is kept in memory: a restarted agent needs a new token.`,
		Example: `  signet token create --group hosts | signet agent --server mesh:8443 --token-file -
  signet agent --config /etc/signet/agent.yaml
  signet agent --config /etc/signet/agent.yaml --check`,
		Args: cobra.NoArgs,
	}
	logFlags(c)
	file := c.Flags().String("config", "", "YAML file")
	check := c.Flags().Bool("check", false, "check the configuration and end")
	srv := c.Flags().String("server", "", "the server's address, host:port")
	token := c.Flags().String("token-file", "", "file with the join token, - for standard input (default: SIGNET_TOKEN)")
	sockets := c.Flags().String("socket-dir", "", "folder of the sockets (default /run/signet)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var cfg agent.Config
		if err := readConfig(*file, &cfg); err != nil {
			return err
		}
		set(c, "server", &cfg.Server, *srv)
		set(c, "token-file", &cfg.TokenFile, *token)
		set(c, "socket-dir", &cfg.SocketDir, *sockets)
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
		return stopped(c.Context(), agent.Run(c.Context(), cfg, log))
	}
	return c
}
