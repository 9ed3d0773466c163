package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newBan() *cobra.Command {
	c := &cobra.Command{
		Use:   "ban AGENT",
		Short: "Shut a host's agent out, at once and for good",
		Long: `Shuts an agent out: its streams end, it gets no certificate any more, and callers
are not sent to its proxies. A banned agent that obeys ends with its proxies; for
one that does not, what it holds ends with its certificates. There is no way back
for the agent or its host key: its host can join as a new agent, with a new token
or a certificate for another key (join.x509pop), which you may have to take back.
The reason is kept for operators, and the agent is not told; the same command with
another --reason changes it.`,
		Example: `  signet ban web-01-3fa9c2d47b --reason "disk lost in transit"
  signet ban web-01-3fa9c2d47b --dry-run
  signet get agents          # which there are`,
		Args:              exactArgs("an AGENT"),
		ValidArgsFunction: completeNames("agents"),
	}
	socketFlag(c)
	why := c.Flags().String("reason", "", "why, for the audit trail and signet get agents -o wide")
	resultFlag(c)
	dry := c.Flags().Bool("dry-run", false, "tell what would happen, ban nobody")
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := resultOf(c)
		if err != nil {
			return err
		}
		id := nodeName(args[0])
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.BanAgent(c.Context(), &api.BanAgentRequest{Agent: id, Reason: *why, DryRun: *dry})
			if err != nil {
				return err
			}
			if o != "text" {
				return showResult(c, o, answer, objectName("agent", "", id))
			}
			return printBan(c, id, *why, answer, *dry)
		})
	}
	return c
}

func printBan(c *cobra.Command, id, why string, answer *api.BanAgentResponse, dry bool) error {
	action := "banned"
	switch {
	case answer.GetChanged():
	case why == "":
		action = "unchanged: it is banned already"
	default:
		action = "is banned already; the reason is the new one"
	}
	if dry {
		action += dryRun
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "agent/%s %s\n", id, action); err != nil {
		return err
	}
	if unread := answer.GetUnread(); unread != "" {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "how many certificates it was given and that are still good is unknown: the issuance log could not be read up to now: %s\nhint: signet check, then the same command again: a ban that stands is only told\n", unread) // as below
	}
	if n := answer.GetCertificates(); n > 0 {
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "certificates that it was given and that are still good: %d; the last ends at %s\n", n, timestamp(answer.GetNotAfter())) // stderr is gone: nobody to tell
	}
	return nil
}
