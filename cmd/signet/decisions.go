package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

func newDecisions() *cobra.Command {
	c := &cobra.Command{
		Use:   "decisions",
		Short: "What was allowed, denied, or would be denied where a policy observes",
		Long: `Lists the decisions that the connected agents keep, the newest first. RESULT is one of
  allowed
  observed   the policy denies it, and it was let through: its mesh or node is observed
  denied
  failed     a proxy could not carry it: signet explain has more, a day back
Denials and what would be have room of their own beside what is allowed: 3,072 of a host,
divided among callers and callees, so that none of them can have the others' forgotten; of
more than --limit hosts, callees and callers are listed in turn, for the same reason.
--follow goes on with those that come; with -o json each is a line. A server has 16 followers
at most, and one row of each in its audit trail.`,
		Example: `  signet decisions --denied
  signet decisions --from shop/web --to shop/orders --since 10m
  signet decisions --denied --follow
  signet decisions --denied -o json | jq -r '.decisions[].path'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	socketFlag(c)
	outputFlags(c)
	from := c.Flags().String("from", "", "only of this caller: its SPIFFE ID, or the end of it: MESH/NODE")
	to := c.Flags().String("to", "", "only at this virtual node or gateway, in the same way")
	denied := c.Flags().Bool("denied", false, "only what is denied, or would be")
	allowed := c.Flags().Bool("allowed", false, "only what is allowed")
	since := c.Flags().Duration("since", 0, "only of this time until now, as 10m; 0: all that are kept")
	limit := c.Flags().Int32P("limit", "n", 100, "at most so many, up to 500")
	follow := c.Flags().Bool("follow", false, "go on until interrupted")
	for _, name := range []string{"from", "to"} {
		completeFlag(c, name, "virtualnodes")
	}
	for _, name := range []string{"since", "limit"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails only for an undefined flag
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case *limit < 1 || *limit > 500:
			return usage(fmt.Errorf("--limit %d: must be 1 to 500", *limit))
		case *since < 0:
			return usage(fmt.Errorf("--since %s: must not be negative", *since))
		case *denied && *allowed:
			return usage(errors.New("--denied and --allowed: give one of them"))
		}
		f := &api.DecisionFilter{Source: *from, Destination: *to, Limit: *limit}
		switch {
		case *denied:
			f.Result = api.DecisionFilter_DENIED
		case *allowed:
			f.Result = api.DecisionFilter_ALLOWED
		}
		if *since > 0 {
			f.Since = timestamppb.New(time.Now().Add(-*since))
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			if *follow {
				return followDecisions(c, admin, f)
			}
			answer, err := admin.Decisions(c.Context(), &api.DecisionsListRequest{Filter: f})
			if err != nil {
				return err
			}
			tellSilent(c, answer.GetSilent())
			return show(c, viewOf(answer))
		})
	}
	return c
}

func viewOf(answer *api.DecisionsListResponse) view {
	v := view{
		message: answer, header: []string{"time", "result", "from", "to", "request", "why", "decision"},
		wide: []string{"rule", "proxy", "host", "commit"}, name: 6,
		none: "no such decision is kept by any connected agent",
	}
	for _, d := range answer.GetDecisions() {
		v.rows = append(v.rows, rowOf(d))
	}
	return v
}

func rowOf(d *api.Decision) []string {
	result := "denied"
	switch {
	case d.GetAllowed():
		result = "allowed"
	case d.GetObserved():
		result = "observed"
	case d.GetCause() == api.Cause_CAUSE_UNSPECIFIED && d.GetKind() != "":
		result = "failed"
	}
	var rules []string
	for _, r := range slices.Concat(d.GetRules(), d.GetFailed()) {
		rules = append(rules, at(r.GetName(), r.GetFile(), r.GetLine()))
	}
	return []string{
		timestamp(d.GetTime()), result, inMesh(d.GetSource()), inMesh(d.GetDestination()),
		strings.TrimSpace(d.GetMethod() + " " + d.GetHost() + d.GetPath()), d.GetMessage(), d.GetId(),
		strings.Join(rules, "; "), d.GetProxy(), nodeName(d.GetNode()), short(d.GetCommit()),
	}
}

// inMesh is an identity without its trust domain, as --from and --to take it.
func inMesh(id string) string {
	if _, path, ok := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/"); ok {
		return path
	}
	return orNone(id)
}

func tellSilent(c *cobra.Command, silent []string) {
	if len(silent) > 0 {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "no answer in time from %s: their decisions are missing\n", strings.Join(silent, ", ")) // stderr is gone: nobody to tell
	}
}

// followDecisions shows decisions until Ctrl-C. A server that ends is an error: whoever follows
// must not take silence for quiet.
func followDecisions(c *cobra.Command, admin api.AdminClient, f *api.DecisionFilter) error {
	o, err := outputOf(c)
	if err != nil {
		return err
	}
	if o == "yaml" {
		return usage(errors.New("--follow goes with -o table, wide, json or name"))
	}
	t, err := tableOf(c, viewOf(nil))
	if err != nil {
		return err
	}
	stream, err := admin.FollowDecisions(c.Context(), &api.DecisionsListRequest{Filter: f})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		switch {
		case err != nil && c.Context().Err() != nil:
			return nil
		case err != nil:
			return err
		}
		tellSilent(c, answer.GetSilent())
		for _, d := range answer.GetDecisions() {
			if err := tellOne(c, t, o, d); err != nil {
				return err
			}
		}
	}
}

func tellOne(c *cobra.Command, t *table, o string, d *api.Decision) error {
	switch o {
	case "json":
		return showLine(c.OutOrStdout(), d)
	case "name":
		_, err := fmt.Fprintln(c.OutOrStdout(), printable(d.GetId()))
		return err
	}
	return t.print(c.OutOrStdout(), [][]string{rowOf(d)})
}
