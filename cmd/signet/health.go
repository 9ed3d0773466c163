package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"signet.example/agent/local"
)

// newHealth is the health check of a container that has an agent.
func newHealth() *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Whether the agent's proxies serve with their identities",
		Long: `Asks the agent of this host, or task, whether each proxy of its configuration serves and has its
identity, and waits for that. Ends with 0 when it is so, 1 when it is not in time, 4 when no agent answers.
As health check of a container give it a second less than the check's own timeout.`,
		Example: `  signet agent health
  signet agent health --wait 4s   # ECS: "healthCheck": {"command": ["CMD", "signet", "agent", "health", "--wait", "4s"], "interval": 5, "timeout": 5}`,
		Args: noArgs,
	}
	sockets := c.Flags().String("socket-dir", local.SocketDir, "folder of the agent's sockets")
	wait := c.Flags().Duration("wait", 10*time.Second, "how long to wait for it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), *wait)
		defer cancel()
		switch err := local.AwaitReady(ctx, *sockets); {
		case errors.Is(err, local.ErrNotRunning):
			return &exitError{err: err, code: exitUnreachable, hint: "the agent's own log says why it does not run; --socket-dir names the folder of its sockets"}
		case err != nil:
			return hinted(fmt.Errorf("not ready: %w", err), "see the agent's log")
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), "ready")
		return err
	}
	return c
}
