package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/repo"
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
  signet policy check policy/
  signet policy check . -o json`,
		Args: exactArgs("a DIR"),
	}
	return lookAt(c, func(_ context.Context, l *look) error {
		l.check()
		return nil
	})
}

func newPolicyTest() *cobra.Command {
	c := &cobra.Command{
		Use:   "test DIR",
		Short: "Check policies and run their tests before they are pushed; exit code 3 where sync would refuse them",
		Long: `Does what ` + "`signet policy check`" + ` does, and runs the tests of the *_test.rego files
as the server does. It needs no server. Exit code 3 if anything is refused or
a test fails.`,
		Example: `  signet policy test .
  signet policy test policy/
  signet policy test . -o json`,
		Args: exactArgs("a DIR"),
	}
	return lookAt(c, func(ctx context.Context, l *look) error {
		if l.check(); len(l.Refused) > 0 {
			return nil
		}
		return l.test(ctx)
	})
}

func readPolicies(ctx context.Context, dir string) (repo.Tree, error) {
	tree, err := repo.ReadDir(ctx, dir)
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return tree, usage(fmt.Errorf("%s: %w", dir, path.Err))
	}
	if err != nil {
		return tree, usage(err)
	}
	return tree, nil
}

// look is what there is to say about a folder of policies.
type look struct {
	Folder   string   `json:"folder"`
	Files    int      `json:"files"`
	Warnings []string `json:"warnings"`
	Refused  []string `json:"refused"`
	Tests    *tests   `json:"tests,omitempty"`

	tree repo.Tree
}

type tests struct {
	Passed   int      `json:"passed"`
	Failed   int      `json:"failed"`
	Failures []string `json:"failures"`
}

// lookAt makes a command of a look at a folder.
func lookAt(c *cobra.Command, what func(context.Context, *look) error) *cobra.Command {
	textOrJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := textOrJSONOf(c)
		if err != nil {
			return err
		}
		tree, err := readPolicies(c.Context(), args[0])
		if err != nil {
			return err
		}
		l := &look{Folder: args[0], Files: len(tree.Modules), Warnings: []string{}, Refused: []string{}, tree: tree}
		if err := what(c.Context(), l); err != nil {
			return err
		}
		if o == "json" {
			err = showJSON(c.OutOrStdout(), l)
		} else {
			warn(c.ErrOrStderr(), l.Warnings)
			err = l.print(c.OutOrStdout())
		}
		if err == nil && (len(l.Refused) > 0 || l.Tests != nil && l.Tests.Failed > 0) {
			return different()
		}
		return err
	}
	return c
}

// check finds the warnings and what would be refused.
func (l *look) check() {
	warnings, err := check.Modules(l.tree.Modules)
	l.Warnings = append(l.Warnings, warnings...)
	if err == nil {
		_, err = policy.Compile(policy.NewRevision(l.tree.URL, "", l.tree.Modules, policy.Generated{}))
	}
	if err != nil {
		l.refuse(err)
	}
}

func (l *look) test(ctx context.Context) error {
	report, err := check.Tree(ctx, l.tree)
	if err != nil && report.Failed == 0 {
		l.refuse(err)
		return ctx.Err()
	}
	l.Tests = &tests{Passed: report.Passed, Failed: report.Failed, Failures: append([]string{}, report.Failures...)}
	return ctx.Err()
}

func (l *look) refuse(err error) {
	for line := range strings.Lines(err.Error()) {
		l.Refused = append(l.Refused, strings.TrimRight(line, "\n"))
	}
}

func wellFormed(files int) string {
	if files == 1 {
		return "1 file is well-formed"
	}
	return fmt.Sprintf("%d files are well-formed", files)
}

func passed(tests int) string {
	if tests == 1 {
		return "1 test passed"
	}
	return fmt.Sprintf("%d tests passed", tests)
}

func (l *look) print(w io.Writer) error {
	lines := l.Refused
	switch {
	case l.Tests != nil:
		lines = append(lines, l.Tests.Failures...)
		lines = append(lines, fmt.Sprintf("%s: %s, %d failed", l.Folder, passed(l.Tests.Passed), l.Tests.Failed))
	case len(l.Refused) == 0:
		lines = append(lines, l.Folder+": "+wellFormed(l.Files))
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
