package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"syscall"

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
		Args: noArgs,
	}
	logFlags(c)
	file := c.Flags().String("config", "", "YAML file")
	check := c.Flags().Bool("check", false, "check the configuration and end")
	srv := c.Flags().String("server", "", "the server's address, host:port")
	token := c.Flags().String("token-file", "", "file with the join token, - for standard input; without one SIGNET_TOKEN is the token")
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
			return hinted(err, "the keys are in docs/CONFIGURATION.md; --server, --token-file and --socket-dir are flags, too")
		}
		if len(cfg.Proxies) > 0 {
			if err := tryEnvoy(c.Context(), cmp.Or(cfg.Envoy, "envoy")); err != nil {
				return hinted(err, "the key envoy of the configuration file names the program that the proxies run")
			}
		}
		if *check {
			_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is good")
			return err
		}
		log, err := logOf(c)
		if err != nil {
			return err
		}
		return agentHint(stopped(c.Context(), agent.Run(c.Context(), cfg, log)))
	}
	return c
}

// agentHint says what to do about a start that fails often.
func agentHint(err error) error {
	token := "make a token where the server runs, and give it to the agent: signet token create --group <group> --out <file>"
	var exit *exitError
	switch {
	case err == nil || errors.As(err, &exit), strings.Contains(err.Error(), "signet token create"):
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		return hinted(err, "another program, or another agent, has this port: choose with the key metrics of the configuration file, 127.0.0.1:0 takes a free one")
	case exitCode(err) == exitDenied:
		return &exitError{err: err, code: exitDenied, hint: token}
	case strings.Contains(err.Error(), "token"):
		return hinted(err, token)
	}
	return err
}
