package policy

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"signet.example/policy/sandbox"
)

// A denial is evaluated a second time to find what stopped each allow rule.
// That must not make a flood of denials dearer than its rate: few at a time,
// and short.
const (
	traceTime     = 50 * time.Millisecond
	traceSteps    = 20_000
	maxFailed     = 100
	maxExpression = 300
)

var maxTracing = runtime.GOMAXPROCS(0)

// trace fills in d.Failed. It changes nothing else: the decision is made.
func (e *evaluation) trace(ctx context.Context, d *Decision) {
	if e.program.allows == nil {
		return
	}
	select {
	case e.c.tracing <- struct{}{}:
		defer func() { <-e.c.tracing }()
	default:
		d.Untraced = "too many denials at once to trace them all"
		return
	}
	t := &tracer{rules: e.program.rules, attempts: map[uint64]*attempt{}, best: map[position]*attempt{}}
	e.budget = sandbox.New(ctx, traceTime, traceSteps, nil)
	if _, err := e.run(ctx, e.program.allows, true, t); err != nil {
		d.Untraced = "tracing stopped early: " + err.Error()
	}
	d.Failed = t.failed()
	if len(d.Failed) > maxFailed {
		d.Failed, d.Untraced = d.Failed[:maxFailed], "only the first rules are listed"
	}
}

// tracer remembers, for each body of an allow rule, the furthest expression
// that was false or undefined.
type tracer struct {
	rules    map[position]RuleRef
	attempts map[uint64]*attempt // by the evaluator's query id
	best     map[position]*attempt
}

type attempt struct {
	index int
	expr  *ast.Expr
}

// Enabled implements topdown.QueryTracer.
func (t *tracer) Enabled() bool { return true }

// Config implements topdown.QueryTracer: values of variables are not wanted,
// they are the request's.
func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (t *tracer) TraceEvent(ev topdown.Event) {
	switch node := ev.Node.(type) {
	case *ast.Rule:
		if ev.Op != topdown.EnterOp || node.Loc() == nil {
			return
		}
		at := positionOf(node.Loc())
		if _, ok := t.rules[at]; !ok {
			return
		}
		if t.best[at] == nil {
			t.best[at] = &attempt{index: -1}
		}
		t.attempts[ev.QueryID] = t.best[at]
	case *ast.Expr:
		a := t.attempts[ev.QueryID]
		if ev.Op == topdown.FailOp && a != nil && node.Index > a.index {
			a.index, a.expr = node.Index, node
		}
	}
}

func (t *tracer) failed() []RuleRef {
	out := make([]RuleRef, 0, len(t.rules))
	for at, rule := range t.rules {
		if a := t.best[at]; a != nil && a.expr != nil {
			rule.Expression, rule.ExpressionLine = expressionText(a.expr)
		}
		out = append(out, rule)
	}
	sortRules(out)
	return out
}

// expressionText is the expression as it was written, on one line.
func expressionText(e *ast.Expr) (string, int) {
	loc := e.Loc()
	if loc == nil {
		return "", 0
	}
	text := strings.Join(strings.Fields(string(loc.Text)), " ")
	if text == "" {
		text = e.String()
	}
	if len(text) > maxExpression {
		text = strings.ToValidUTF8(text[:maxExpression], "") + " …"
	}
	return text, loc.Row
}
