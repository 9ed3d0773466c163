package main

import (
	"github.com/spf13/cobra"

	"signet.example/agent"
	"signet.example/server"
)

// newAuthz is the process that the agent starts from this same binary, on a
// socket that it inherits. It is not for the command line.
func newAuthz() *cobra.Command {
	c := &cobra.Command{Use: "authz", Hidden: true, Args: cobra.NoArgs}
	logFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logOf(c)
		if err != nil {
			return err
		}
		return stopped(c.Context(), agent.RunAuthz(c.Context(), log))
	}
	return c
}

// newPolicyChild is the process in which the server reads a policy repository. It is
// not for the command line.
func newPolicyChild() *cobra.Command {
	c := &cobra.Command{Use: "policy-child", Hidden: true, Args: cobra.NoArgs}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return stopped(c.Context(), server.RunPolicyChild(c.Context()))
	}
	return c
}
