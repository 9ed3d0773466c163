package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"signet.example/policy"
	"signet.example/policy/sandbox"
)

// What one call of a builtin may take, at the most: it cannot be stopped.
const (
	longestCall = 10 * time.Second // a ceiling for busy machines, with the race detector: 30 ms are usual
	dearestCall = 192 << 20        // bytes that it allocates, kept or not
)

// slower is by how much the race detector is, in time and memory.
func slower() uint64 {
	if raceDetector {
		return 10
	}
	return 1
}

// TestNoBuiltinRunsLongOrFillsTheMemory calls each builtin of the capabilities with
// every combination of large operands of the kinds that it takes.
func TestNoBuiltinRunsLongOrFillsTheMemory(t *testing.T) {
	sandbox.Fence()
	texts, numbers, lists, objects := largeStrings(), largeNumbers(), largeLists(), largeObjects()
	any := []*ast.Term{texts[2], texts[len(texts)-2], numbers[len(numbers)-1], lists[1], lists[3], lists[len(lists)-1], objects[1]}
	for _, name := range sandbox.BuiltinNames() {
		decl := ast.BuiltinMap[name]
		f := topdown.GetBuiltin(name)
		if f == nil { // part of the evaluator, such as print
			continue
		}
		var operands [][]*ast.Term
		for _, arg := range decl.Decl.FuncArgs().Args {
			switch kind := arg.String(); {
			case kind == "string":
				operands = append(operands, texts)
			case kind == "number":
				operands = append(operands, numbers)
			case strings.HasPrefix(kind, "object"):
				operands = append(operands, objects)
			case strings.HasPrefix(kind, "array") || strings.HasPrefix(kind, "set"):
				operands = append(operands, lists)
			default:
				operands = append(operands, any)
			}
		}
		n := 0
		each(operands, func(o []*ast.Term) {
			// All of them where that takes seconds; else some of each.
			if n++; !raceDetector || n%13 == 0 {
				callBuiltin(t, name, f, o)
			}
		})
	}
}

// TestBuiltinsAreBoundedWhereTheirCostIsHidden: small operands that stand for much.
func TestBuiltinsAreBoundedWhereTheirCostIsHidden(t *testing.T) {
	sandbox.Fence()
	s, n := ast.StringTerm, func(text string) *ast.Term { return ast.NumberTerm(jsonNumber(text)) }
	long, lines := s(strings.Repeat("a", 60_000)), s(strings.Repeat("- *a\n", 10_000))
	for _, row := range []struct {
		name     string
		operands []*ast.Term
	}{
		{"bits.lsh", []*ast.Term{n("1"), n("999999999999")}},
		{"sprintf", []*ast.Term{s(strings.Repeat("%1000000d", 5000)), ast.ArrayTerm(n("1"))}},
		{"sprintf", []*ast.Term{s(strings.Repeat("%[1]s", 10_000)), ast.ArrayTerm(long)}},
		{"replace", []*ast.Term{long, s(""), long}},
		{"strings.replace_n", []*ast.Term{ast.ObjectTerm(ast.Item(s("a"), long)), long}},
		{"regex.replace", []*ast.Term{long, s("(a)"), s(strings.Repeat("$1", 30_000))}},
		{"regex.match", []*ast.Term{s("(((a{0,10}b?){0,10}c?){0,10}d?)*$"), long}},
		{"regex.match", []*ast.Term{s(strings.Repeat("(x+x+)+", 400) + "y"), long}},
		{"regex.find_all_string_submatch_n", []*ast.Term{s(strings.Repeat("()", 1000)), long, n("-1")}},
		{"glob.match", []*ast.Term{s(strings.Repeat("*a", 200)), ast.ArrayTerm(), long}},
		{"glob.match", []*ast.Term{s(strings.Repeat("{*a,*b}", 12)), ast.NullTerm(), s(strings.Repeat("a", 200))}},
		{"concat", []*ast.Term{long, ast.ArrayTerm(repeat(s(""), 50_000)...)}},
		{"numbers.range", []*ast.Term{n("0"), n("1e300")}},
		{"numbers.range_step", []*ast.Term{n("0"), n("1000000000"), n("1")}},
		{"yaml.unmarshal", []*ast.Term{s("a: &a [" + strings.Repeat("x,", 1000) + "]\nb:\n" + lines.Value.(ast.String).String())}},
		{"units.parse", []*ast.Term{s("1e999999999Ei")}},
		{"units.parse_bytes", []*ast.Term{s("1e999999999Ei")}},
		{"to_number", []*ast.Term{s("1e999999999")}},
		{"json.unmarshal", []*ast.Term{s("1e999999999")}},
		{"json.unmarshal", []*ast.Term{s(strings.Repeat("[", 100_000))}},
		{"floor", []*ast.Term{n("1e999999")}},
		{"format_int", []*ast.Term{n("1e999999"), n("2")}},
		{"product", []*ast.Term{ast.ArrayTerm(repeat(n("9e900"), 60_000)...)}},
		{"json.marshal", []*ast.Term{doubled(40)}},
		{"equal", []*ast.Term{doubled(40), doubled(40)}},
		{"walk", []*ast.Term{nested(9000)}},
		{"indexof_n", []*ast.Term{s(strings.Repeat("ä", 500_000)), s(strings.Repeat("ä", 250_000))}},
		{"trim", []*ast.Term{s(strings.Repeat("ä", 500_000)), s(strings.Repeat("ö", 500_000) + "ä")}},
	} {
		f := topdown.GetBuiltin(row.name)
		if f == nil {
			t.Fatalf("no builtin %s", row.name)
		}
		callBuiltin(t, row.name, f, row.operands)
	}
}

func callBuiltin(t *testing.T, name string, f topdown.BuiltinFunc, operands []*ast.Term) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx := topdown.BuiltinContext{
		Context: context.Background(), Cancel: topdown.NewCancel(), Metrics: metrics.New(),
		Time: ast.NumberTerm("1"), Capabilities: ast.CapabilitiesForThisVersion(), Cache: builtins.Cache{},
	}
	begun := time.Now()
	stop := time.AfterFunc(30*time.Second, func() {
		fmt.Fprintf(os.Stderr, "%s does not end with %.300s\n", name, operands)
		os.Exit(1)
	})
	err := f(ctx, operands, func(*ast.Term) error { return nil })
	stop.Stop()
	took := time.Since(begun)
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; took > longestCall*time.Duration(slower()) || //nolint:gosec // it is 1 or 10
		allocated > dearestCall*slower() {
		t.Errorf("%s took %s and %d MiB with %.200s (%.200v)", name, took, allocated>>20, fmt.Sprint(operands), err)
	}
}

func TestARefusedBuiltinIsNamedWithTheReason(t *testing.T) {
	for builtin, call := range map[string]string{
		"strings.render_template": `strings.render_template("{{.a}}", {"a": "b"}) == "b"`,
		"graph.reachable_paths":   `count(graph.reachable_paths({}, set())) == 0`,
		"http.send":               `http.send({}).status == 200`,
		"io.jwt.encode_sign":      `io.jwt.encode_sign({}, {}, {}) == ""`,
		"graphql.is_valid":        `graphql.is_valid("", "")`,
	} {
		_, err := policy.Compile(policy.NewRevision("s", "c", []policy.Module{{Path: "a.rego", Rego: "package signet.authz\n\nallow contains \"x\" if {\n\t" + call + "\n}\n"}}, policy.Generated{}))
		if err == nil || !strings.Contains(err.Error(), "a.rego:3: builtin "+builtin+" (line 4) is not available to policies: ") {
			t.Errorf("%s: %v", builtin, err)
		}
	}
}

func TestDoublingsByBuiltinsEndBeforeTheyFillTheMemory(t *testing.T) {
	for _, step := range []string{
		`x%[1]d := concat("", [x%[2]d, x%[2]d])`, `x%[1]d := sprintf("%%s%%s", [x%[2]d, x%[2]d])`,
		`x%[1]d := replace(x%[2]d, "a", "aa")`, `x%[1]d := $"{x%[2]d}{x%[2]d}"`, `x%[1]d := json.marshal([x%[2]d, x%[2]d])`,
	} {
		var body strings.Builder
		for i := 1; i <= 60; i++ {
			fmt.Fprintf(&body, "\t"+step+"\n", i, i-1)
		}
		c := compileRules(t, "allow contains \"x\" if {\n\tx0 := \"a\"\n"+body.String()+"\tcount(x60) > 0\n}\n")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.Evaluate(t.Context(), policy.Input{})
		runtime.ReadMemStats(&after)
		if err == nil || after.TotalAlloc-before.TotalAlloc > dearestCall*slower() {
			t.Errorf("%s: %d MiB, %v", step, (after.TotalAlloc-before.TotalAlloc)>>20, err)
		}
		var at *sandbox.Error
		if errors.As(err, &at) && (at.File != "a.rego" || at.Line == 0) {
			t.Errorf("%s: an error without place: %v", step, err)
		}
	}
}

func compileRules(t *testing.T, rules string) *policy.Compiled {
	t.Helper()
	c, err := policy.Compile(policy.NewRevision("s", "c", []policy.Module{{Path: "a.rego", Rego: "package signet.authz\n\n" + rules}}, policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func each(operands [][]*ast.Term, call func([]*ast.Term)) {
	at := make([]int, len(operands))
	for {
		row := make([]*ast.Term, len(operands))
		for i := range operands {
			row[i] = operands[i][at[i]]
		}
		call(row)
		i := 0
		for ; i < len(at); i++ {
			if at[i]++; at[i] < len(operands[i]) {
				break
			}
			at[i] = 0
		}
		if i == len(at) {
			return
		}
	}
}
