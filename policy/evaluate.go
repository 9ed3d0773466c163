package policy

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"

	"signet.example/policy/sandbox"
	"signet.example/proxy"
)

// Evaluate decides one request: an exemption, else some allow rule and no deny
// rule. An error denies; it never quotes the request. A builtin that fails is
// an error and not undefined, since a deny rule that is undefined would allow.
func (c *Compiled) Evaluate(ctx context.Context, in Input) (Decision, error) {
	program, without := c.programFor(in)
	if rule, ok := c.exemption(in); ok {
		return Decision{Allowed: true, Allow: []RuleRef{rule}, Unset: c.Settable(in)}, nil
	}
	txn, err := c.store.NewTransaction(ctx)
	if err != nil {
		return Decision{}, fmt.Errorf("evaluate: %w", err)
	}
	defer c.store.Abort(ctx, txn)
	b := sandbox.New(ctx, sandbox.MaxTime, sandbox.MaxSteps, func(within time.Duration) func(time.Duration) {
		until, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		return c.lanes.EnterUntil(in.Destination.ID.String(), until.Done())
	})
	e := &evaluation{c: c, program: program, without: without, input: ast.NewTerm(in.value(c.compat != nil)), txn: txn, time: in.Time, budget: b}
	defer b.Done()
	return e.decide(ctx)
}

// Settable are the headers that the policy can set on requests to a destination: a caller's own
// copies of them do not pass with what it has not allowed. Of what it allowed those that package
// envoy.authz can set do, as under opa-envoy-plugin.
func (c *Compiled) Settable(in Input) []string {
	program, _ := c.programFor(in)
	return slices.Concat(program.settable, c.compatHeaders)
}

// programFor also returns the virtual node that is called where the policy has packages of
// others and none of its own.
func (c *Compiled) programFor(in Input) (asked *program, without proxy.Ref) {
	node, ok := in.Destination.node()
	if !ok || len(c.nodes) == 0 {
		return c.mesh, proxy.Ref{}
	}
	names := c.packagesOf(node)
	if len(names) == 0 {
		return c.mesh, node
	}
	return c.programs[programKey(names)], proxy.Ref{}
}

// evaluation is one request's way through the queries of its program.
type evaluation struct {
	c       *Compiled
	program *program
	without proxy.Ref // as of programFor
	input   *ast.Term
	txn     storage.Transaction
	time    time.Time
	budget  *sandbox.Budget
}

func (e *evaluation) decide(ctx context.Context) (Decision, error) {
	var d Decision
	if err := e.sets(ctx, &d); err != nil {
		return Decision{}, err
	}
	headers := http.Header{}
	if len(d.Allow) == 0 && len(d.Deny) == 0 && e.c.compat != nil {
		if err := e.compat(ctx, &d, headers); err != nil {
			return Decision{}, err
		}
	}
	d.Allowed = len(d.Allow) > 0 && len(d.Deny) == 0
	if !d.Allowed {
		if len(d.Deny) == 0 {
			e.trace(ctx, &d)
			switch {
			case d.Untraced != "":
			case len(e.program.contested) > 0:
				d.Untraced = strings.Join(e.program.contested, " and ") + " may mean several virtual nodes, so its allow rules hold for none"
			case e.without.Name != "":
				d.Untraced = "the policy has packages of virtual nodes and none of " + e.without.Mesh + "/" + e.without.Name
			}
		}
		return d, nil
	}
	if err := e.headers(ctx, headers); err != nil {
		return Decision{}, err
	}
	if len(headers) > 0 {
		d.Headers = headers
	}
	for _, name := range e.program.settable {
		if headers.Get(name) == "" {
			d.Unset = append(d.Unset, name)
		}
	}
	return d, nil
}

// sets fills in the rules that hold.
func (e *evaluation) sets(ctx context.Context, d *Decision) error {
	result, err := e.run(ctx, e.program.sets, true)
	if err != nil || result == nil {
		return err
	}
	for v, names := range e.program.allow {
		if d.Allow, err = collect(d.Allow, result[v], names); err != nil {
			return err
		}
	}
	for v, names := range e.program.deny {
		if d.Deny, err = collect(d.Deny, result[v], names); err != nil {
			return err
		}
	}
	sortRules(d.Allow)
	sortRules(d.Deny)
	return nil
}

func collect(into []RuleRef, term *ast.Term, names map[string]RuleRef) ([]RuleRef, error) {
	if term == nil {
		return nil, &sandbox.Error{Code: "internal: a set is undefined"}
	}
	set, ok := term.Value.(ast.Set)
	if !ok {
		return nil, &sandbox.Error{Code: "internal: not a set"}
	}
	var err error
	set.Foreach(func(t *ast.Term) {
		name, ok := t.Value.(ast.String)
		rule, known := names[string(name)]
		if !ok || !known {
			err = &sandbox.Error{Code: "internal: a name that no rule has"}
			return
		}
		into = append(into, rule)
	})
	return into, err
}

func sortRules(rules []RuleRef) {
	slices.SortFunc(rules, func(a, b RuleRef) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		if n := strings.Compare(a.File, b.File); n != 0 {
			return n
		}
		return a.Line - b.Line
	})
}

func (e *evaluation) headers(ctx context.Context, into http.Header) error {
	result, err := e.run(ctx, e.program.headers, true)
	if err != nil {
		return err
	}
	for _, term := range result {
		if doc, ok := only(term); ok {
			if err := addHeaders(into, doc); err != nil {
				return err
			}
		}
	}
	return nil
}

// only returns the one value of an array that a comprehension made; none means undefined.
func only(term *ast.Term) (ast.Value, bool) {
	a, ok := term.Value.(*ast.Array)
	if !ok || a.Len() != 1 {
		return nil, false
	}
	return a.Elem(0).Value, true
}

// run evaluates a query, which yields one result, or nil for no query.
func (e *evaluation) run(ctx context.Context, q *query, strict bool, tracers ...topdown.QueryTracer) (topdown.QueryResult, error) {
	if q == nil {
		return nil, nil
	}
	t := topdown.NewQuery(q.body).
		WithQueryCompiler(q.compiler).
		WithCompiler(e.c.compiler).
		WithStore(e.c.store).
		WithTransaction(e.txn).
		WithInput(e.input).
		WithTime(e.time).
		WithCancel(e.budget).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(strict)
	for _, tracer := range tracers {
		// Without index and early exit every rule is entered and can tell where it fails.
		t = t.WithQueryTracer(tracer).WithIndexing(false).WithEarlyExit(false)
	}
	var out topdown.QueryResult
	err := t.Iter(ctx, func(r topdown.QueryResult) error {
		out = r
		return nil
	})
	if err != nil {
		return nil, e.budget.Explain(err)
	}
	if out == nil {
		return nil, &sandbox.Error{Code: "internal: the query is undefined"}
	}
	return out, nil
}
