package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newHistory() *cobra.Command {
	c := &cobra.Command{
		Use:   "history [REVISION | KIND [NAME]]",
		Short: "Who changed which resources, and when",
		Long: `Shows the revisions of what is applied, the newest first: when each came, who asked
for it, and which resources it changed; of all, or of those that are named. Of one
REVISION it shows what it changed in them, as a unified diff. How long it is known is
retention.changes of the server's configuration.`,
		Example: `  signet history
  signet history 41                # what that revision changed
  signet history virtualrouter orders
  signet history virtualnode/shop/web -n 5 -o json
  signet rollback 41 --dry-run     # what going back to one would change`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usage(errors.New("signet history takes a REVISION, or a KIND and a NAME"))
			}
			return nil
		},
		ValidArgsFunction: completeObjects(1, "all"),
	}
	socketFlag(c)
	outputFlags(c)
	mesh := c.Flags().String("mesh", "", "only of this mesh")
	completeFlag(c, "mesh", "meshes")
	limit := c.Flags().Int32P("limit", "n", fewRevisions, "at most so many revisions")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *limit < 1 {
			return usage(fmt.Errorf("--limit %d: must be at least 1", *limit))
		}
		req := &api.HistoryRequest{Mesh: *mesh, Limit: *limit}
		if len(args) == 1 {
			req.Revision, _ = strconv.ParseUint(args[0], 10, 63) // else it is a kind
		}
		if len(args) > 0 && args[0] != "all" && req.GetRevision() == 0 {
			refs, err := refsOf(args, *mesh)
			if err != nil {
				return err
			}
			if len(refs) > 1 {
				return usage(errors.New("signet history shows one resource, or all of a kind"))
			}
			req.Kind, req.Mesh, req.Name = refs[0].kind, refs[0].mesh, refs[0].name
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.History(c.Context(), req)
			if err != nil {
				return err
			}
			if o, _ := c.Flags().GetString("output"); req.GetRevision() != 0 && (o == "table" || o == "wide") {
				return printRevision(c, answer.GetRevisions()[0])
			}
			return showHistory(c, answer)
		})
	}
	return c
}

// fewRevisions are shown, and offered, where nobody says how many.
const fewRevisions = 20

// fewChanges of a revision are named in a row; more are counted.
const fewChanges = 3

func showHistory(c *cobra.Command, answer *api.HistoryResponse) error {
	v := view{message: answer, header: []string{"revision", "at", "who", "changes"}, none: fmt.Sprintf("nothing has changed since revision %d", answer.GetSince())}
	for _, r := range answer.GetRevisions() {
		v.rows = append(v.rows, []string{strconv.FormatUint(r.GetRevision(), 10), timestamp(r.GetAt()), r.GetActor(), changesText(r)})
	}
	return show(c, v)
}

// changesText is what a revision changed, in a row.
func changesText(r *api.Revision) string {
	var changes []string
	for i, ch := range r.GetChanges() {
		if i == fewChanges {
			changes = append(changes, fmt.Sprintf("%d more", len(r.GetChanges())-fewChanges))
			break
		}
		changes = append(changes, ch.GetActionWord()+" "+objectName(ch.GetKind(), ch.GetMesh(), ch.GetName()))
	}
	return strings.Join(changes, ", ")
}

// printRevision writes what one revision changed.
func printRevision(c *cobra.Command, r *api.Revision) error {
	if _, err := fmt.Fprintf(c.OutOrStdout(), "revision %d at %s by %s\n", r.GetRevision(), timestamp(r.GetAt()), printable(r.GetActor())); err != nil {
		return err
	}
	for _, ch := range r.GetChanges() {
		if err := printDiff(c, "before", "after", ch); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s %s%s\n", objectName(ch.GetKind(), ch.GetMesh(), ch.GetName()), ch.GetActionWord(), newOwner(ch)); err != nil {
			return err
		}
	}
	return nil
}

func newRollback() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback REVISION",
		Short: "Make the resources what they were in a revision",
		Long: `Makes every resource what it was in a revision, those of Signet's own kinds too: what
was changed is changed back, what was deleted is there again, what came since is
deleted. That is a new revision, checked as apply checks: all of it, or nothing.
Bans, agents, tokens and policies (which are in git) stay as they are.
With --wait the command ends when each proxy whose configuration this makes another one
has it or has refused it, as apply --wait does.`,
		Example: `  signet history                   # which there are
  signet rollback 41 --dry-run
  signet rollback 41 --wait`,
		Args:              exactArgs("a REVISION"),
		ValidArgsFunction: completeRevisions,
	}
	socketFlag(c)
	resultFlag(c)
	dry := c.Flags().Bool("dry-run", false, "tell the changes, write nothing")
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
		revision, err := strconv.ParseUint(args[0], 10, 63)
		if err != nil {
			return usage(fmt.Errorf("REVISION %q: must be a number, as signet history has it", args[0]))
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Rollback(c.Context(), &api.RollbackRequest{Revision: revision, DryRun: *dry, Concerned: most > 0})
			if err != nil {
				return err
			}
			if o == "text" && len(answer.GetChanges()) == 0 {
				_, err := fmt.Fprintf(c.OutOrStdout(), "unchanged: everything is as it was in revision %d\n", revision)
				return err
			}
			return showing{format: o, dry: *dry, most: most}.show(c, admin, answer)
		})
	}
	return c
}
