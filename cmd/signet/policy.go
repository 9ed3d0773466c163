package main

import (
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"signet.example/api"
	"signet.example/policy"
)

func newPolicy() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "policy",
		Short:   "Rego policies from git",
		Example: "  signet policy init policy/ --from-mesh\n  signet policy sync\n  signet policy check .\n  signet policy sync mesh-policy -o json",
	})
	c.AddCommand(newPolicyInit(), newPolicySync(), newPolicyCheck(), newPolicyTest())
	return c
}

func newPolicySync() *cobra.Command {
	c := &cobra.Command{
		Use:   "sync [SOURCE]",
		Short: "Fetch, test and activate policies now",
		Long: `Fetches each PolicySource (or the one named), runs its own tests, and serves
the new revision when they pass. Otherwise the last good revision stays, and
the command fails with the tests' output.`,
		Example: `  signet policy sync
  signet policy sync mesh-policy`,
		Args:              rangeArgs(0, "a SOURCE"),
		ValidArgsFunction: completeNames("policysources"),
	}
	socketFlag(c)
	outputFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		req := &api.SyncPolicyRequest{}
		if len(args) == 1 {
			req.Source = args[0]
		}
		return withAdmin(c, func(admin api.AdminClient) error {
			answer, err := admin.SyncPolicy(c.Context(), req)
			if err != nil {
				return err
			}
			return showPolicies(c, answer)
		})
	}
	return c
}

func showPolicies(c *cobra.Command, answer *api.SyncPolicyResponse) error {
	v := view{message: answer, header: []string{"source", "commit", "revision", "modules", "tests", "changed"}, wide: []string{"url"}, none: "there is no PolicySource: every call between services is denied until one is applied"}
	var failed []error
	hint := "the last good revision is still served; fix the policies, push, and sync again"
	for _, s := range answer.GetStatuses() {
		tests := strconv.Itoa(int(s.GetTests()))
		if s.GetError() != "" && s.GetTests() == 0 {
			tests = "-" // those of what is in force are not known
		}
		v.rows = append(v.rows, []string{
			s.GetSource(), short(s.GetCommit()), short(s.GetRevision()),
			strconv.Itoa(int(s.GetModules())), tests, strconv.FormatBool(s.GetChanged()), s.GetUrl(),
		})
		warn(c.ErrOrStderr(), s.GetWarnings())
		if s.GetError() != "" {
			failed = append(failed, errors.New(s.GetSource()+": "+s.GetError()))
			if s.GetCommit() == "" {
				hint = "there is no good revision to go on with: " + policy.WithoutPolicy + "; mend what the error names, and sync again"
			}
		}
	}
	if err := show(c, v); err != nil {
		return err
	}
	if len(failed) > 0 {
		return hinted(errors.Join(failed...), hint)
	}
	return nil
}
