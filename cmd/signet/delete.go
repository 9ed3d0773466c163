package main

import (
	"github.com/spf13/cobra"

	"signet.example/api"
)

func newDelete() *cobra.Command {
	c := &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Remove a resource that nothing refers to",
		Long: `Removes one resource. What others still refer to stays, and the message names
them. KIND is a kind in any case, singular or plural, as in get.`,
		Example: `  signet delete virtualnode old-orders
  signet delete entry batch --dry-run`,
		Args:              exactArgs("a KIND", "a NAME"),
		ValidArgsFunction: completeObjects(),
	}
	socketFlag(c)
	mesh := c.Flags().String("mesh", "", "the resource's mesh, where names repeat")
	completeFlag(c, "mesh", "meshes")
	dry := c.Flags().Bool("dry-run", false, "tell the changes, write nothing")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Kind: args[0], Mesh: *mesh, Name: args[1], DryRun: *dry})
			if err != nil {
				return err
			}
			return printChanges(c, answer, *dry)
		})
	}
	return c
}
