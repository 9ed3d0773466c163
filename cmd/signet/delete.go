package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

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
With --wait the command ends when each proxy whose configuration this makes another one
has it, as apply --wait does.
An agent can be deleted when it is gone: not connected, and its certificate has
ended. --gone deletes all that are. To shut out one that may come back: signet ban.`,
		Example: `  signet delete virtualnode old-orders
  signet delete entry batch --dry-run
  signet delete route canary --wait
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
	wait := waitFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		most, err := wait(*dry)
		if err != nil {
			return err
		}
		t := showing{format: o, dry: *dry, most: most}
		if len(*in.files) > 0 {
			return deleteSources(c, in, t)
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
			return deleteEach(c, admin, refs, t)
		})
	}
	return c
}

// deleteEach deletes one after the other, and shows all of it as one change: also where one of
// them is not deleted, what was before it.
func deleteEach(c *cobra.Command, admin api.AdminClient, refs []ref, t showing) error {
	done := &api.ApplyResponse{}
	if t.most > 0 {
		done.Effect = &api.Effect{}
	}
	for _, r := range refs {
		if isAgents(r.kind) {
			r.name = nodeName(r.name)
		}
		answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Kind: r.kind, Mesh: r.mesh, Name: r.name, DryRun: t.dry, Concerned: t.most > 0})
		if err != nil {
			if len(done.GetChanges()) > 0 {
				err = errors.Join(err, showChanges(c, t.format, done, t.dry))
			}
			return err
		}
		t.before = cmp.Or(t.before, answer.GetRevision()-1)
		done.Changes, done.Warnings, done.Revision = append(done.GetChanges(), answer.GetChanges()...), append(done.GetWarnings(), answer.GetWarnings()...), answer.GetRevision()
		done.Effect = bothConcern(done.GetEffect(), answer.GetEffect())
	}
	return t.show(c, admin, done)
}

// bothConcern is whom two changes concern, nil where one does not tell it.
func bothConcern(a, b *api.Effect) *api.Effect {
	if a == nil || b == nil {
		return nil
	}
	for _, n := range b.GetNodes() {
		same := slices.IndexFunc(a.GetNodes(), func(o *api.Effect_Node) bool { return proto.Equal(o.GetNode(), n.GetNode()) })
		if same < 0 {
			a.Nodes = append(a.GetNodes(), n)
			continue
		}
		a.Nodes[same].Resources = append(a.Nodes[same].GetResources(), n.GetResources()...)
		a.Nodes[same].Authorization = cmp.Or(n.GetAuthorization(), a.Nodes[same].GetAuthorization())
	}
	return a
}

func deleteSources(c *cobra.Command, in input, t showing) error {
	sources, _, err := in.read(c)
	if err != nil {
		return err
	}
	return withAdmin(c, func(admin api.AdminClient) error {
		answer, err := admin.Delete(c.Context(), &api.DeleteRequest{Sources: sources, DryRun: t.dry, Concerned: t.most > 0})
		if err != nil {
			return err
		}
		return t.show(c, admin, answer)
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
