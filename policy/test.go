package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"signet.example/policy/tree"
)

const (
	testTime    = 5 * time.Second
	maxFailures = 50
)

// TestReport is what a tree's own tests say.
type TestReport struct {
	Passed, Failed int
	// Failures by file:line and name.
	Failures []string
	// Warnings do not refuse the tree.
	Warnings []string
}

// Test compiles a tree as it will be served, checks it and runs its tests. An
// error means that the tree must not be served: it does not compile, Check
// refuses it, or a test failed (the report is filled in then too). A tree
// without tests has a warning.
func Test(ctx context.Context, tree tree.Tree) (TestReport, error) {
	var report TestReport
	if _, err := Compile(NewRevision(tree.URL, tree.Commit, tree.Modules, nil)); err != nil {
		return report, err
	}
	warnings, err := Check(tree.Modules)
	if err != nil {
		return report, fmt.Errorf("commit %.12s: %w", tree.Commit, err)
	}
	report.Warnings = warnings
	modules, all, err := parse(tree.Modules)
	if err != nil {
		return report, err
	}
	results, err := runTests(ctx, modules, all)
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
	if report.Passed+report.Failed == 0 && slices.ContainsFunc(tree.Modules, Module.IsTest) {
		report.Warnings = append(report.Warnings, "no rule in the *_test.rego files is a test: their names begin with test_")
	}
	if report.Failed > 0 {
		return report, fmt.Errorf("policy tests of commit %.12s: %d of %d failed: %s", tree.Commit, report.Failed, report.Passed+report.Failed, strings.Join(report.Failures[:min(len(report.Failures), maxListedFailures)], "; "))
	}
	return report, nil
}

// maxListedFailures bounds how many failing tests one error names.
const maxListedFailures = 5

func runTests(ctx context.Context, modules map[string]*ast.Module, all []parsed) (chan *tester.Result, error) {
	compat := slices.ContainsFunc(all, func(p parsed) bool { return p.compat })
	if err := addLibraries(modules); err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(map[string]any{}, inmem.OptReturnASTValuesOnRead(true))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("policy tests: %w", err)
	}
	results, err := tester.NewRunner().
		SetCompiler(newCompiler()).
		SetStore(store).
		SetModules(modules).
		SetTimeout(testTime).
		// As when serving: a builtin that fails is an error, but in envoy.authz.
		RaiseBuiltinErrors(!compat).
		RunTests(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("policy tests: %w", err)
	}
	return results, nil
}

func (t *TestReport) add(r *tester.Result) {
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
