package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"signet.example/agent"
	"signet.example/agent/join"
	"signet.example/internal/child"
	"signet.example/internal/private"
)

func newAgent() *cobra.Command {
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run the node agent of this host",
		Long: `Runs the node agent: it joins the server with a token, or by a certificate of
your own authority (the keys join and trust of the file), makes and keeps the private keys of this host's workloads, serves Envoys and applications over Unix
sockets, and starts the Envoys it is told to. It goes on when the server is gone.
SIGHUP reads the file again: proxies are added and taken away, the log level is
set; where anything is wrong with it, the old one stays in force.
The host key is kept in data_dir: once it has joined, the agent is started again
without a token, as the same agent, until it is banned.`,
		Example: `  signet token create --group hosts | signet agent --server mesh:8443 --token-file -
  signet agent --config /etc/signet/agent.yaml
  signet agent --config /etc/signet/agent.yaml --check`,
		Args: noArgs,
	}
	flags := addAgentFlags(c)
	check := c.Flags().Bool("check", false, "check the configuration and what this host has for it, and end")
	c.Flags().BoolVar(&flags.task, "task", false, "as `signet task` starts it")
	_ = c.Flags().MarkHidden("task") // fails only for an undefined flag
	read := flags.read
	c.RunE = func(c *cobra.Command, _ []string) error {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP) // from here on: it would end an agent that still waits for its server
		defer signal.Stop(hangups)
		cfg, err := read()
		if err != nil {
			return err
		}
		if *check {
			if err := agent.Check(c.Context(), cfg); err != nil {
				return agentHint(cfg, err)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is good")
			return err
		}
		var level slog.LevelVar
		if err := setLevel(c, &level, cfg); err != nil {
			return err
		}
		log, err := logAt(c, &level)
		if err != nil {
			return err
		}
		cfg.Reload = func(ctx context.Context, apply func(agent.Config) error) {
			for {
				select {
				case <-hangups:
				case <-ctx.Done():
					return
				}
				next, err := read()
				if err == nil {
					err = apply(next)
				}
				if err == nil {
					err = setLevel(c, &level, next)
				}
				if err != nil {
					log.ErrorContext(ctx, "configuration not reloaded, the old one stays in force", slog.Any("err", brief(err)))
					continue
				}
				log.InfoContext(ctx, "configuration reloaded", slog.String("log_level", level.Level().String()))
			}
		}
		return agentHint(cfg, stopped(c.Context(), agent.Run(c.Context(), cfg, log)))
	}
	c.AddCommand(newOwners(), newHealth(), newStop())
	return c
}

// agentFlags are the agent's configuration: a file, in a task the environment, and flags.
type agentFlags struct {
	c                                  *cobra.Command
	task                               bool
	path, srv, token, dataDir, sockets string
}

func addAgentFlags(c *cobra.Command) *agentFlags {
	f := &agentFlags{c: c}
	logFlags(c)
	c.Flags().StringVar(&f.path, "config", "", "YAML file")
	c.Flags().StringVar(&f.srv, "server", "", "the server's address, host:port")
	c.Flags().StringVar(&f.token, "token-file", "", "file with the join token, - for standard input; without one SIGNET_TOKEN is the token")
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "folder of the host key (default /var/lib/signet-agent for root, else signet-agent in ~/.local/state)")
	c.Flags().StringVar(&f.sockets, "socket-dir", "", "folder of the sockets (default /run/signet)")
	return f
}

// read returns the configuration. What the command line says holds over each reading of the
// file. A start, a reload and --check all read by this, and so refuse the same.
func (f *agentFlags) read() (agent.Config, error) {
	cfg := agent.DefaultConfig()
	file, err := readConfig(f.path, &cfg)
	if err != nil {
		return cfg, err
	}
	if f.task {
		if err := readTask(&cfg, &file); err != nil {
			return cfg, err
		}
	}
	file.set(f.c, "server", &cfg.Server, f.srv)
	file.set(f.c, "token-file", &cfg.TokenFile, f.token)
	file.set(f.c, "data-dir", &cfg.DataDir, f.dataDir)
	file.set(f.c, "socket-dir", &cfg.SocketDir, f.sockets)
	if err := file.check(cfg.Validate()); err != nil {
		return cfg, err
	}
	cfg.Version = version()
	return cfg, tryUsers(cfg)
}

// tryUsers checks whether the users of the proxies are there and can run Envoy.
func tryUsers(cfg agent.Config) error {
	users, err := cfg.ProxyUsers()
	if errors.As(err, new(*child.LackError)) {
		return byOwner(err, true)
	}
	if err != nil {
		return hinted(err, "docs/AGENT.md has the users of a host, and the unit that grants the agent what it needs")
	}
	for _, u := range users {
		if err := tryEnvoy(cmp.Or(cfg.Envoy, "envoy"), u); err != nil {
			return hinted(err, "the key envoy of the configuration file names the program that the proxies run; their users must be able to execute it")
		}
	}
	return nil
}

func setLevel(c *cobra.Command, at *slog.LevelVar, cfg agent.Config) error {
	level, err := levelOf(c, cfg.LogLevel)
	if err == nil {
		at.Set(level)
	}
	return err
}

// agentHint reports what to do about a start that fails often.
func agentHint(cfg agent.Config, err error) error {
	token := "make a token where the server runs, and give it to the agent: signet token create --group <group> --out <file>"
	var exit *exitError
	switch {
	case err == nil, errors.As(err, &exit), errors.Is(err, join.ErrNoToken), errors.Is(err, join.ErrOwnEvidence):
		return err
	case errors.As(err, new(*private.ForeignError)):
		return byOwner(err, true)
	case errors.Is(err, syscall.EADDRINUSE):
		return hinted(err, "another program, or another agent, has this port: choose another with the key that is named; of metrics 127.0.0.1:0 takes a free one")
	case exitCode(err) == exitDenied && cfg.Join.Given() != "":
		return &exitError{err: err, code: exitDenied, hint: "if its agent was banned, the host can join as another one: with a certificate for another key (the keys join." + cfg.Join.Given() + " of its configuration)"}
	case exitCode(err) == exitDenied:
		return &exitError{err: err, code: exitDenied, hint: token}
	case errors.As(err, new(*join.TokenError)):
		return hinted(err, token)
	}
	return err
}
