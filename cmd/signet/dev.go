package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"signet.example/dev"
	"signet.example/internal/child"
)

func newDev() *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "A whole mesh on this machine, to look at and call",
		Long: `Makes a mesh in a temporary folder: a server, a node agent, real Envoys, small
applications, an App Mesh spec and policies in git. It prints the calls to try.
Ctrl-C stops everything and removes the folder. It reads no file of yours,
needs no root, and runs beside another.`,
		Example: `  signet dev
  signet dev --once     # make the calls, compare, end
  signet dev call web /orders`,
		Args: noArgs,
	}
	once := c.Flags().Bool("once", false, "make the calls, print expected and seen, exit 1 if one differs")
	envoy := c.Flags().String("envoy", "envoy", "the Envoy binary")
	lifetime := c.Flags().Duration("svid-lifetime", 20*time.Second, "lifetime of the certificates")
	c.RunE = func(c *cobra.Command, _ []string) error {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		path, err := findEnvoy(*envoy)
		if err != nil {
			return err
		}
		clearEnv()
		return stopped(c.Context(), dev.Run(c.Context(), dev.Config{
			Exe: exe, Envoy: path, Once: *once,
			SVIDLifetime: *lifetime, Out: c.OutOrStdout(), Progress: c.ErrOrStderr(),
		}))
	}
	c.AddCommand(newDevCall())
	return c
}

// newDevCall is one call in a demo that runs.
func newDevCall() *cobra.Command {
	c := &cobra.Command{
		Use:   "call NODE PATH",
		Short: "One call in the demo that runs, as a node's application makes it",
		Long: `Calls the orders service of a running demo through a node's own proxy, and prints
the status, the id of a denial, and the body. Exit code 5: the call was denied.`,
		Example: `  signet dev call web /orders
  signet dev call web /account --token valid
  signet dev call batch /orders --demo /tmp/signet-1234`,
		Args: exactArgs("a NODE", "a PATH"),
	}
	cfg := dev.CallConfig{}
	c.Flags().StringVar(&cfg.Token, "token", "", "with an end user's token: valid or expired")
	c.Flags().StringVar(&cfg.Dir, "demo", "", "the demo's folder, where several run")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg.From, cfg.Path, cfg.Out = args[0], args[1], c.OutOrStdout()
		err := dev.Call(c.Context(), cfg)
		if errors.Is(err, dev.ErrDenied) {
			return &exitError{err: err, code: exitDenied, quiet: true}
		}
		return err
	}
	return c
}

// newDemoGet is what the demo runs as another user.
func newDemoGet() *cobra.Command {
	return &cobra.Command{
		Use: "demo-get WAY URL", Short: "A part of `signet dev`, which starts it", Hidden: true, Args: exactArgs("a WAY", "a URL"),
		RunE: func(c *cobra.Command, args []string) error {
			return dev.Get(c.Context(), args[0], args[1], c.OutOrStdout())
		},
	}
}

// newDemoService is what the demo's applications run; it is nobody else's.
func newDemoService() *cobra.Command {
	c := &cobra.Command{Use: "demo-service", Short: "A part of `signet dev`, which starts it", Hidden: true, Args: cobra.NoArgs}
	var cfg dev.ServiceConfig
	c.Flags().StringVar(&cfg.Name, "name", "", "the application's name")
	c.Flags().StringVar(&cfg.Listen, "listen", "", "address and port to serve")
	c.Flags().StringVar(&cfg.WorkloadAPI, "workload-api", "", "the agent's Workload API socket")
	logFlags(c)
	for _, flag := range []string{"name", "listen", "workload-api"} {
		_ = c.MarkFlagRequired(flag) // fails only for an undefined flag
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logOf(c)
		if err != nil {
			return err
		}
		cfg.Log = log
		return stopped(c.Context(), dev.RunService(c.Context(), cfg))
	}
	return c
}

// findEnvoy makes the path absolute: children run in other folders.
func findEnvoy(path string) (string, error) {
	const hint = "`make tools` fetches Envoy into .bin/envoy; name it with --envoy"
	found, err := exec.LookPath(path)
	if err != nil {
		return "", hinted(err, hint)
	}
	if err := tryEnvoy(found, nil); err != nil {
		return "", hinted(err, hint)
	}
	return filepath.Abs(found)
}

// tryEnvoy runs `envoy --version` as a user: what is no Envoy, or not this user's to
// execute, is told at once, not after proxies that never come up.
func tryEnvoy(path string, as *child.User) error {
	var out bytes.Buffer
	p, err := child.Start(child.Spec{
		Path: path, Args: []string{"--version"}, Stdout: &out, User: as, Limits: child.Limits{Deadline: 10 * time.Second},
	})
	if err != nil {
		if as != nil {
			return fmt.Errorf("%s --version as uid %d: %w", path, as.UID, err)
		}
		return fmt.Errorf("%s --version: %w", path, err)
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	if !bytes.Contains(out.Bytes(), []byte("version:")) {
		return fmt.Errorf("%s is not an Envoy: --version answers %.60q", path, out.Bytes())
	}
	return nil
}
