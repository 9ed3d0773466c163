package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain ID",
		Short: "Why a call was denied (or allowed): rule, file and line, commit",
		Long: `Looks up a decision by the id in the denied answer's x-signet-decision-id header.
The record is redacted: no token, no cookie, no query, no body. Looking is audited.`,
		Example: `  signet explain 5f0c2c1f9c7b4d6e8a1b2c3d4e5f6071
  signet explain 5f0c2c1f9c7b4d6e8a1b2c3d4e5f6071 -o json`,
		Args: cobra.ExactArgs(1),
	}
	socketFlag(c)
	outputFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := outputOf(c)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Explain(c.Context(), &api.ExplainRequest{Id: args[0]})
			if err != nil {
				return err
			}
			if o == "json" || o == "yaml" {
				return showMessage(c.OutOrStdout(), o, answer.GetDecision())
			}
			_, err = io.WriteString(c.OutOrStdout(), decisionText(answer.GetDecision()))
			return err
		})
	}
	return c
}

func decisionText(d *api.Decision) string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\n", key, printable(value))
		}
	}
	line("decision", d.GetId())
	line("result", result(d))
	line("why", d.GetMessage())
	for _, r := range d.GetRules() {
		line("rule", at(r.GetName(), r.GetFile(), r.GetLine()))
	}
	for _, r := range d.GetFailed() {
		line("not allowed", at(r.GetName(), r.GetFile(), r.GetLine()))
		if r.GetExpression() != "" {
			line("  failed", at(r.GetExpression(), r.GetFile(), r.GetExpressionLine()))
		}
	}
	if d.GetCommit() != "" {
		line("policy", "commit "+d.GetCommit()+" of "+d.GetPolicySource())
	}
	line("from", orNone(d.GetSource()))
	line("to", d.GetDestination())
	line("request", strings.TrimSpace(d.GetMethod()+" "+d.GetHost()+d.GetPath()))
	if t := d.GetToken(); t != nil {
		line("token", tokenText(t))
	}
	line("time", stamp(d.GetTime()))
	line("node", d.GetNode())
	return b.String()
}

func result(d *api.Decision) string {
	if d.GetAllowed() {
		return "allowed"
	}
	switch d.GetCause() {
	case api.Cause_CAUSE_POLICY:
		return "denied by policy"
	case api.Cause_CAUSE_ERROR:
		return "denied: the policy could not be evaluated"
	case api.Cause_CAUSE_UNAVAILABLE:
		return "denied: nobody could decide"
	}
	return "denied"
}

func at(what, file string, line int32) string {
	if file == "" {
		return what
	}
	return fmt.Sprintf("%s (%s:%d)", what, file, line)
}

func orNone(id string) string {
	if id == "" {
		return "nobody verified"
	}
	return id
}

func tokenText(t *api.TokenSummary) string {
	if t.GetError() != "" {
		return "refused: " + t.GetError()
	}
	return fmt.Sprintf("subject %s of %s, until %s", t.GetSubject(), t.GetIssuer(), stamp(t.GetExpiry()))
}
