package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"signet.example/policy"
	"signet.example/policy/tree"
)

const (
	testTime    = 5 * time.Second
	maxFailures = 50
)

// Report is what a tree's own tests say.
type Report struct {
	Passed, Failed int
	// Failures by file:line and name.
	Failures []string
	// Warnings do not refuse the tree.
	Warnings []string
}

// Tree compiles a tree as it will be served, checks it and runs its tests. An
// error means that the tree must not be served: it does not compile, Modules
// refuses it, or a test failed (the report is filled in then too). A tree
// without tests has a warning.
func Tree(ctx context.Context, tree tree.Tree) (Report, error) {
	var report Report
	if _, err := policy.Compile(policy.NewRevision(tree.URL, tree.Commit, tree.Modules, policy.Generated{})); err != nil {
		return report, err
	}
	warnings, err := Modules(tree.Modules)
	if err != nil {
		return report, fmt.Errorf("commit %.12s: %w", tree.Commit, err)
	}
	report.Warnings = warnings
	parsed, err := policy.Parse(tree.Modules)
	if err != nil {
		return report, err
	}
	results, err := runTests(ctx, parsed)
	if err != nil {
		return report, err
	}
	for r := range results {
		report.add(r)
	}
	slices.Sort(report.Failures)
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("policy tests of commit %.12s: %w", tree.Commit, err)
	}
	if report.Passed+report.Failed == 0 && slices.ContainsFunc(tree.Modules, policy.Module.IsTest) {
		report.Warnings = append(report.Warnings, "no rule in the *_test.rego files is a test: their names begin with test_")
	}
	if report.Failed > 0 {
		return report, fmt.Errorf("policy tests of commit %.12s: %d of %d failed: %s", tree.Commit, report.Failed, report.Passed+report.Failed, strings.Join(report.Failures[:min(len(report.Failures), maxListedFailures)], "; "))
	}
	return report, nil
}

// maxListedFailures bounds how many failing tests one error names.
const maxListedFailures = 5

func runTests(ctx context.Context, parsed policy.Parsed) (chan *tester.Result, error) {
	store := inmem.NewFromObjectWithOpts(map[string]any{}, inmem.OptReturnASTValuesOnRead(true))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("policy tests: %w", err)
	}
	results, err := tester.NewRunner().
		SetCompiler(policy.NewCompiler()).
		SetStore(store).
		SetModules(parsed.Modules).
		SetTimeout(testTime).
		// As when serving: a builtin that fails is an error, but in envoy.authz.
		RaiseBuiltinErrors(!parsed.Compat).
		RunTests(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("policy tests: %w", err)
	}
	return results, nil
}

func (t *Report) add(r *tester.Result) {
	where := ""
	if r.Location != nil {
		where = fmt.Sprintf("%s:%d: ", r.Location.File, r.Location.Row)
	}
	switch {
	case r.Skip:
		t.Warnings = append(t.Warnings, where+r.Name+" is skipped (todo_)")
	case r.Pass():
		t.Passed++
	default:
		t.Failed++
		why := "is not true"
		if r.Error != nil {
			why = r.Error.Error()
		}
		if len(t.Failures) < maxFailures {
			t.Failures = append(t.Failures, where+r.Name+": "+why)
		}
	}
}
