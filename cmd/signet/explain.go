package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [ID]",
		Short: "Why a call was denied, or failed at a proxy, and what to do",
		Long: `Looks up what a proxy answered by itself: by the id in the answer's x-signet-decision-id
header, or by caller, callee and time, a day back; then each kind of answer is told with how
many there were. docs/ANSWERS.md has all kinds. --at is a time of day in UTC as in access
logs, or a whole one (RFC 3339); its minute is looked at, with the one before and after.
The record is redacted: no token, no cookie, no query, no body. Looking by id is audited.`,
		Example: `  signet explain 5f0c2c1f9c7b4d6e8a1b2c3d4e5f6071
  signet explain --from shop/web --to shop/orders --since 10m
  signet explain --to shop/orders --at 14:03
  signet explain 5f0c2c1f9c7b4d6e8a1b2c3d4e5f6071 -o json
  signet explain 5f0c2c1f9c7b4d6e8a1b2c3d4e5f6071 --columns why,policy`,
		Args:              rangeArgs(0, "the decision's ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	socketFlag(c)
	outputFlags(c)
	which := answersFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := outputOf(c)
		if err != nil {
			return err
		}
		f, err := which(args)
		if err != nil {
			return usage(err)
		}
		if f != nil {
			return withAdmin(c, func(admin api.AdminClient) error { return explainAll(c, admin, f, o) })
		}
		// Envoy writes its own denials' ids with dashes.
		if !decisionID.MatchString(strings.ReplaceAll(args[0], "-", "")) {
			return &exitError{
				err: fmt.Errorf("%q is not a decision's id: 32 hex digits", printable(args[0])), code: exitUsage,
				hint: "it is in the denied answer's header x-signet-decision-id: curl -i shows it",
			}
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Explain(c.Context(), &api.ExplainRequest{Id: args[0]})
			if err != nil {
				return err
			}
			d := answer.GetDecision()
			switch o {
			case "json", "yaml":
				return showMessage(c.OutOrStdout(), o, d)
			case "name":
				_, err := fmt.Fprintln(c.OutOrStdout(), d.GetId())
				return err
			}
			return printFacts(c, factsOf(d, o == "wide"))
		})
	}
	return c
}

var decisionID = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)

// fact is one line of an explanation.
type fact struct{ key, value string }

func printFacts(c *cobra.Command, facts []fact) error {
	columns, _ := c.Flags().GetStringSlice("columns")
	var keys []string
	for _, f := range facts {
		keys = append(keys, f.key)
	}
	show := map[string]bool{}
	for _, name := range columns {
		i, err := columnOf(keys, name)
		if err != nil {
			return err
		}
		show[keys[i]] = true
	}
	for _, f := range facts {
		if len(columns) > 0 && !show[f.key] {
			continue
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%-12s %s\n", f.key, printable(f.value)); err != nil {
			return err
		}
	}
	return nil
}

func factsOf(d *api.Decision, wide bool) []fact {
	var facts []fact
	line := func(key, value string) {
		if value != "" {
			facts = append(facts, fact{key, value})
		}
	}
	line("decision", d.GetId())
	line("result", result(d))
	line("why", d.GetMessage())
	line("to do", d.GetCure())
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
	from := orNone(d.GetSource())
	if d.GetSource() == "" && d.GetPeer() != "" {
		from += ", at " + d.GetPeer()
	}
	line("from", from)
	line("to", d.GetDestination())
	line("request", strings.TrimSpace(d.GetMethod()+" "+d.GetHost()+d.GetPath()))
	if t := d.GetToken(); t != nil {
		line("token", tokenText(t))
	}
	line("time", timestamp(d.GetTime()))
	if d.GetCount() > 1 {
		line("times", fmt.Sprintf("%d, from %s until %s", d.GetCount(), timestamp(d.GetFirst()), timestamp(d.GetLast())))
	}
	line("node", nodeName(d.GetNode()))
	if wide {
		line("proxy", d.GetProxy())
		line("revision", d.GetPolicyRevision())
		line("took", (time.Duration(d.GetDurationMicros()) * time.Microsecond).String())
		for _, name := range slices.Sorted(maps.Keys(d.GetHeaders())) {
			line("header", name+": "+d.GetHeaders()[name])
		}
	}
	return facts
}

func result(d *api.Decision) string {
	if d.GetAllowed() {
		return "allowed"
	}
	if d.GetObserved() {
		return "let through, since its destination is observed; else it would be " + verdict(d)
	}
	return verdict(d)
}

// verdict is how it is denied.
func verdict(d *api.Decision) string {
	switch d.GetCause() {
	case api.Cause_CAUSE_POLICY:
		// What no policy of the operator's said has a rule of ours.
		if r := d.GetRules(); len(r) == 1 && r[0].GetFile() == "" {
			if what, ours := strings.CutPrefix(r[0].GetName(), "signet: "); ours {
				return "denied: " + what
			}
		}
		return "denied by policy"
	case api.Cause_CAUSE_ERROR:
		return "denied: the policy could not be evaluated"
	case api.Cause_CAUSE_UNAVAILABLE:
		return "denied: nobody could decide"
	}
	if d.GetKind() != "" {
		return "not carried: " + d.GetKind()
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
	return fmt.Sprintf("subject %s of %s, until %s", t.GetSubject(), t.GetIssuer(), timestamp(t.GetExpiry()))
}
