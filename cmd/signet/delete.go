package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newDelete() *cobra.Command {
	c := &cobra.Command{
		Use:   "delete KIND NAME…",
		Short: "Remove what nothing refers to, or agents that are gone",
		Long: `Removes resources by name. What others still refer to stays, and the message
names them. KIND is a kind in any case, singular or plural, as in get.
An agent can be deleted when it is gone: not connected, and its certificate has
ended. --gone deletes all that are. To shut out one that may come back: signet ban.`,
		Example: `  signet delete virtualnode old-orders
  signet delete entry batch --dry-run
  signet delete agent web-01-3fa9c2d47b
  signet delete agents --gone`,
		ValidArgsFunction: completeObjects(math.MaxInt, "agents"),
	}
	socketFlag(c)
	mesh := c.Flags().String("mesh", "", "the resource's mesh, where names repeat")
	completeFlag(c, "mesh", "meshes")
	dry := c.Flags().Bool("dry-run", false, "tell the changes, write nothing")
	gone := c.Flags().Bool("gone", false, "in place of a NAME, with the KIND agents: all that are gone")
	c.Args = func(c *cobra.Command, args []string) error {
		if !*gone {
			return someArgs("a KIND", "a NAME")(c, args)
		}
		if len(args) != 1 || !isAgents(args[0]) {
			return usage(errors.New("--gone takes the KIND agents, and no NAME"))
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return withAdmin(c, func(admin api.AdminClient) error {
			kind, names := args[0], args[1:]
			if *gone {
				var err error
				if names, err = goneAgents(c, admin); err != nil {
					return err
				}
			}
			for _, name := range names {
				if isAgents(kind) {
					name = nodeName(name)
				}
				answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Kind: kind, Mesh: *mesh, Name: name, DryRun: *dry})
				if err != nil {
					return err
				}
				warn(c.ErrOrStderr(), answer.GetWarnings())
				if err := printChanges(c, answer, *dry); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}

func goneAgents(c *cobra.Command, admin api.AdminClient) ([]string, error) {
	answer, err := admin.Agents(c.Context(), &api.AgentsRequest{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, a := range answer.GetAgents() {
		if a.GetState() == "gone" {
			ids = append(ids, a.GetId())
		}
	}
	if len(ids) == 0 {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "no agent is gone") // stderr is gone: nobody to tell
	}
	return ids, nil
}
