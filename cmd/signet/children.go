package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"signet.example/agent/authzproc"
	"signet.example/internal/child"
	"signet.example/policy/check"
	"signet.example/policy/repo"
	"signet.example/server/policies"
)

// startedBy refuses a part of Signet that was started by hand: without the sockets
// of its parent it can do nothing, and would only say that a descriptor is bad.
func startedBy(c *cobra.Command, parent string) error {
	if _, err := unix.GetsockoptInt(child.FirstFile, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
		return nil
	}
	return &exitError{
		err:  fmt.Errorf("%s is a part of `%s`, which starts it and hands it its sockets: it is not for the command line", c.CommandPath(), parent),
		code: exitUsage, hint: "run " + parent,
	}
}

// newAuthz is the process that the agent starts from this same binary, on a
// socket that it inherits. It is not for the command line.
func newAuthz() *cobra.Command {
	c := &cobra.Command{Use: "authz", Short: "A part of `signet agent`, which starts it", Hidden: true, Args: cobra.NoArgs}
	logFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := startedBy(c, "signet agent"); err != nil {
			return err
		}
		log, err := logOf(c)
		if err != nil {
			return err
		}
		return stopped(c.Context(), authzproc.Run(c.Context(), log))
	}
	return c
}

// newPolicyChild is the process in which the server reads a policy repository. It is
// not for the command line.
func newPolicyChild() *cobra.Command {
	c := &cobra.Command{Use: "policy-child", Short: "A part of `signet server`, which starts it", Hidden: true, Args: cobra.NoArgs}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := startedBy(c, "signet server"); err != nil {
			return err
		}
		return stopped(c.Context(), policies.RunChild(c.Context(), checked))
	}
	return c
}

// checked is what the child says of a tree of policies before it is served.
func checked(ctx context.Context, tree repo.Tree) (passed int, warnings []string, err error) {
	report, err := check.Tree(ctx, tree)
	return report.Passed, report.Warnings, err
}
