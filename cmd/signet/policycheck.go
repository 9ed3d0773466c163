package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/policy"
)

func newPolicyCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "Look at policies before they are pushed; exit code 3 where sync would refuse them",
		Long: `Reads the *.rego files of a folder and tells, by file and line, what
` + "`signet policy sync`" + ` would refuse: what does not compile, rules that nobody
reads, and what is read of the input and never there. It needs no server, and
so cannot tell which virtual nodes there are. Exit code 3 if anything is
refused; warnings alone are 0.`,
		Example: `  signet policy check .
  signet policy check policy/`,
		Args: exactArgs("a DIR"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		tree, err := readPolicies(c.Context(), args[0])
		if err != nil {
			return err
		}
		if err := checkPolicies(c, tree); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d files are well-formed\n", args[0], len(tree.Modules))
		return err
	}
	return c
}

func newPolicyTest() *cobra.Command {
	c := &cobra.Command{
		Use:   "test DIR",
		Short: "Check policies and run their tests before they are pushed; exit code 3 where sync would refuse them",
		Long: `Does what ` + "`signet policy check`" + ` does, and runs the tests of the *_test.rego files
as the server does. It needs no server. Exit code 3 if anything is refused or
a test fails.`,
		Example: `  signet policy test .
  signet policy test policy/`,
		Args: exactArgs("a DIR"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		tree, err := readPolicies(c.Context(), args[0])
		if err != nil {
			return err
		}
		if err := checkPolicies(c, tree); err != nil {
			return err
		}
		report, err := policy.Test(c.Context(), tree)
		for _, f := range report.Failures {
			if _, err := fmt.Fprintln(c.OutOrStdout(), printable(f)); err != nil {
				return err
			}
		}
		if err != nil && report.Failed == 0 {
			return refusedPolicies(c, err)
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s: %d tests passed, %d failed\n", args[0], report.Passed, report.Failed); err != nil {
			return err
		}
		if report.Failed > 0 {
			return different()
		}
		return nil
	}
	return c
}

func readPolicies(ctx context.Context, dir string) (policy.Tree, error) {
	tree, err := policy.ReadDir(ctx, dir)
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return tree, usage(fmt.Errorf("%s: %w", dir, path.Err))
	}
	if err != nil {
		return tree, usage(err)
	}
	return tree, nil
}

// checkPolicies writes the warnings and what would be refused.
func checkPolicies(c *cobra.Command, tree policy.Tree) error {
	warnings, err := policy.Check(tree.Modules)
	warn(c.ErrOrStderr(), warnings)
	if err == nil {
		_, err = policy.Compile(policy.NewRevision(tree.URL, "", tree.Modules, nil))
	}
	if err != nil {
		return refusedPolicies(c, err)
	}
	return nil
}

func refusedPolicies(c *cobra.Command, err error) error {
	for line := range strings.Lines(err.Error()) {
		if _, err := fmt.Fprintln(c.OutOrStdout(), printable(strings.TrimRight(line, "\n"))); err != nil {
			return err
		}
	}
	return different()
}
