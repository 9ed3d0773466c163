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
		Use:   "delete KIND NAME… | -f FILE",
		Short: "Remove what nothing refers to, or agents that are gone",
		Long: `Removes resources by name. What others still refer to stays, and the message
names them. KIND is a kind in any case, singular or plural, as in get, and an object
can be named in one word as -o name prints it: kind/name or kind/mesh/name.
With -f, manifests name the objects, whatever else they say, and all are deleted in one
change, or none; what is not stored is named.
An agent can be deleted when it is gone: not connected, and its certificate has
ended. --gone deletes all that are. To shut out one that may come back: signet ban.`,
		Example: `  signet delete virtualnode old-orders
  signet delete entry batch --dry-run
  signet get entries -o name | xargs signet delete
  signet delete -f mesh/ -R --dry-run
  signet delete agent web-01-3fa9c2d47b
  signet delete agents --gone`,
		ValidArgsFunction: completeObjects(math.MaxInt, "agents"),
	}
	in := fileFlags(c)
	mesh := c.Flags().String("mesh", "", "the resource's mesh, where names repeat")
	completeFlag(c, "mesh", "meshes")
	dry := c.Flags().Bool("dry-run", false, "tell the changes, write nothing")
	resultFlag(c)
	gone := c.Flags().Bool("gone", false, "in place of a NAME, with the KIND agents: all that are gone")
	c.Args = func(c *cobra.Command, args []string) error {
		if len(*in.files) > 0 {
			if len(args) > 0 || *gone {
				return usage(errors.New("-f names what is deleted: no KIND, NAME or --gone stands beside it"))
			}
			return nil
		}
		if !*gone {
			if err := refArgs(args, 1); err != nil {
				return usage(fmt.Errorf("%s %w", c.CommandPath(), err))
			}
			return nil
		}
		if len(args) != 1 || !isAgents(args[0]) {
			return usage(errors.New("--gone takes the KIND agents, and no NAME"))
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		if len(*in.files) > 0 {
			return deleteSources(c, in, o, *dry)
		}
		refs, err := refsOf(args, *mesh)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			if *gone {
				if refs, err = goneAgents(c, admin); err != nil {
					return err
				}
			}
			done := &api.ApplyResponse{}
			for _, r := range refs {
				if isAgents(r.kind) {
					r.name = nodeName(r.name)
				}
				answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Kind: r.kind, Mesh: r.mesh, Name: r.name, DryRun: *dry})
				if err != nil {
					if o != "text" && len(done.GetChanges()) > 0 { // those before it are deleted
						err = errors.Join(err, showChanges(c, o, done, *dry))
					}
					return err
				}
				if o == "text" {
					if err := showChanges(c, o, answer, *dry); err != nil {
						return err
					}
				}
				done.Changes, done.Warnings, done.Revision = append(done.GetChanges(), answer.GetChanges()...), append(done.GetWarnings(), answer.GetWarnings()...), answer.GetRevision()
			}
			if o == "text" {
				return nil
			}
			return showChanges(c, o, done, *dry)
		})
	}
	return c
}

func deleteSources(c *cobra.Command, in input, o string, dry bool) error {
	sources, _, err := in.read(c)
	if err != nil {
		return err
	}
	return withAdmin(c, func(admin api.AdminClient) error {
		answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Sources: sources, DryRun: dry})
		if err != nil {
			return err
		}
		return showChanges(c, o, answer, dry)
	})
}

func goneAgents(c *cobra.Command, admin api.AdminClient) ([]ref, error) {
	answer, err := admin.Agents(c.Context(), &api.AgentsRequest{})
	if err != nil {
		return nil, err
	}
	var ids []ref
	for _, a := range answer.GetAgents() {
		if a.GetState() == api.AgentInfo_GONE {
			ids = append(ids, ref{kind: "agent", name: a.GetId()})
		}
	}
	if len(ids) == 0 {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "no agent is gone") // stderr is gone: nobody to tell
	}
	return ids, nil
}
