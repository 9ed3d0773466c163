package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "What is wrong, why, and the command that fixes it; exit code 3 on errors",
		Long: `Looks at the server, its agents, certificates, proxies and policies once.
Each finding has an id that is never given to another cause, what is wrong, and
what fixes it. Exit code 3 if one is an error; warnings alone are 0.`,
		Example: `  signet check
  signet check -o json
  signet check --columns id,severity,subject`,
		Args: noArgs,
	}
	socketFlag(c)
	outputFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		o, err := outputOf(c)
		if err != nil {
			return err
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.Check(c.Context(), &api.CheckRequest{})
			if err != nil {
				return err
			}
			if o == "table" && !c.Flags().Changed("columns") {
				err = printFindings(c, answer)
			} else {
				err = show(c, findingsView(answer))
			}
			if err != nil {
				return err
			}
			for _, f := range answer.GetFindings() {
				if f.GetSeverity() == api.Finding_ERROR {
					return different()
				}
			}
			return nil
		})
	}
	return c
}

func findingsView(answer *api.CheckResponse) view {
	v := view{message: answer, header: []string{"id", "severity", "subject", "cause", "fix"}}
	for _, f := range answer.GetFindings() {
		v.rows = append(v.rows, []string{f.GetId(), f.GetSeverityWord(), f.GetSubject(), f.GetCause(), f.GetFix()})
	}
	return v
}

func printFindings(c *cobra.Command, answer *api.CheckResponse) error {
	w := c.OutOrStdout()
	on := colors(c, w)
	if len(answer.GetFindings()) == 0 {
		_, err := fmt.Fprintln(w, paint(on, green, "all is well"))
		return err
	}
	for _, f := range answer.GetFindings() {
		color := map[api.Finding_Severity]string{api.Finding_ERROR: red, api.Finding_WARNING: yellow}[f.GetSeverity()]
		head := f.GetSeverityWord() + " " + f.GetId()
		if color != "" {
			head = paint(on, color, head)
		}
		if _, err := fmt.Fprintf(w, "%s %s\n  cause: %s\n", head, printable(f.GetSubject()), printable(f.GetCause())); err != nil {
			return err
		}
		if f.GetFix() != "" {
			if _, err := fmt.Fprintf(w, "  fix:   %s\n", printable(f.GetFix())); err != nil {
				return err
			}
		}
	}
	return nil
}
