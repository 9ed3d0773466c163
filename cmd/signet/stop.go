package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"signet.example/agent/envoy"
	"signet.example/agent/local"
)

// newStop has the agent of a task stop before the task does.
func newStop() *cobra.Command {
	c := &cobra.Command{
		Use:   "stop",
		Short: "Tell the agent of this task to stop, and wait until its callers have gone elsewhere",
		Long: `Has the agent of this task stop as if it were told by SIGTERM, and ends when the task's callers have gone
elsewhere: the application may be told to stop then. Its proxy goes on while the application does, which listens
at its ports or calls out: --application is for how long that may be. With --on-term it waits for SIGTERM first: as a container
that depends on the application it is stopped before the application is (docs/TASKS.md).`,
		Example: `  signet agent stop
  signet agent stop --application 10s
  signet agent stop --on-term   # as a container's command`,
		Args: noArgs,
	}
	sockets := c.Flags().String("socket-dir", local.SocketDir, "folder of the agent's sockets")
	onTerm := c.Flags().Bool("on-term", false, "wait for SIGTERM, then tell it")
	application := c.Flags().Duration("application", envoy.MostEarly, "how long the application may go on, 2m30s at most")
	wait := c.Flags().Duration("wait", 25*time.Second, "how long to wait for the callers")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *wait <= 0 {
			return usage(fmt.Errorf("--wait %s: want more than 0", *wait))
		}
		if *application < 0 || *application > envoy.MostEarly {
			return usage(fmt.Errorf("--application %s: want 0 to %s", *application, envoy.MostEarly))
		}
		ctx := c.Context()
		if *onTerm {
			_, _ = fmt.Fprintln(c.ErrOrStderr(), "waiting for SIGTERM") // for a container's log
			<-ctx.Done()
			ctx = context.WithoutCancel(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, *wait)
		defer cancel()
		atMost, err := local.Stop(ctx, *sockets, *application)
		switch {
		case errors.Is(err, local.ErrHosts):
			return hinted(fmt.Errorf("the agent whose sockets are in %s does not stop: %w", *sockets, err),
				"have what runs it stop it, as `systemctl stop signet-agent`, or send it SIGTERM: callers of its proxies go elsewhere first then, too (drain_time)")
		case errors.Is(err, local.ErrNotRunning):
			return &exitError{err: err, code: exitUnreachable, hint: "--socket-dir names the folder of the sockets of the task's agent"}
		case err != nil:
			return err
		}
		text := "callers have gone elsewhere"
		if atMost > 0 {
			text += fmt.Sprintf("; the proxy goes on while the application does, for %s at most since it was told (--application)", atMost)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	return c
}
