// Package check says of a tree of modules, before it is served, what Rego does not: that
// what it reads is there, that what it defines is read, and whether its own tests pass.
// Main entries: Tree, which does all of it, and Modules. What a module may be at all is
// package policy's to say.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"signet.example/policy"
)

// Modules holds modules to more than policy.Compile does: that what they read is there,
// and that what they define is read. A slip in either is undefined in Rego, and
// a deny rule that is undefined lets everything through. The error names each
// by file and line; the warnings are what cannot be told.
//
// Compile does not ask this, so that what an older version accepted goes on
// being served until its repository is put right.
func Modules(modules []policy.Module) (warnings []string, err error) {
	c := &checker{}
	if err := c.compile(modules); err != nil {
		return nil, err
	}
	c.typeErrors()
	if c.compiler.Graph != nil {
		c.documents()
		c.unread()
	}
	if !c.compiler.Failed() {
		c.compatResult()
	}
	return c.result()
}

type checker struct {
	compiler *ast.Compiler
	reader   reader
	compat   bool
	problems []problem
	general  []string // warnings of no file
}

// compile runs the compiler with the input's shape as its schema, and reads
// the modules where it has resolved their imports. A schema in a module's own
// annotations is not looked at, so none can widen it.
func (c *checker) compile(modules []policy.Module) error {
	parsed, err := policy.Parse(modules)
	if err != nil {
		return err
	}
	tests := 0
	for _, m := range modules {
		if m.IsTest() {
			delete(parsed.Modules, m.Path)
			tests++
		}
	}
	if tests == 0 {
		c.general = append(c.general, "the repository has no policy tests (*_test.rego)")
	}
	c.compat = parsed.Compat
	c.reader.input = inputShape(c.compat)
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, c.reader.input.schema())
	c.compiler = policy.NewCompiler().WithSchemas(schemas).WithStageAfterID(ast.StageResolveRefs, ast.CompilerStageDefinition{
		Name: "Reads", MetricName: "reads",
		Stage: func(compiler *ast.Compiler) *ast.Error {
			c.reader.read(compiler.Modules)
			return nil
		},
	})
	c.compiler.Compile(parsed.Modules)
	c.problems = c.reader.problems
	return nil
}

// typeErrors are those of lines of which nothing better is said already.
func (c *checker) typeErrors() {
	for _, e := range c.compiler.Errors {
		p := problem{text: e.Message}
		if e.Location != nil {
			p.file, p.line = e.Location.File, e.Location.Row
		}
		if slices.ContainsFunc(c.problems, func(o problem) bool { return o.file == p.file && o.line == p.line && !o.warning }) {
			continue
		}
		if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok && d.Have == nil && len(d.OneOf) > 0 {
			p.text = fmt.Sprintf("%s: there is no %s: %s", d.Ref, d.Ref[d.Pos].Value, among(d.Ref[d.Pos], d.OneOf))
		} else if e.Details != nil {
			p.text += ": " + strings.Join(strings.Fields(strings.Join(e.Details.Lines(), " ")), " ")
		}
		c.problems = append(c.problems, p)
	}
}

// among reports which of the values was probably meant.
func among(t *ast.Term, values []ast.Value) string {
	var words []string
	for _, v := range values {
		if s, ok := v.(ast.String); ok {
			words = append(words, string(s))
		}
	}
	slices.Sort(words)
	if s, ok := t.Value.(ast.String); ok {
		if best := nearest(string(s), words); best != "" {
			return "did you mean " + best + "?"
		}
	}
	return "there are " + strings.Join(words, ", ")
}

// documents finds what is read of data and no rule defines. There is no other
// data: data files are not loaded.
func (c *checker) documents() {
	for _, d := range c.reader.documents {
		ref := d.ref.GroundPrefix()
		if len(ref) == 1 || len(c.compiler.GetRules(ref)) > 0 || len(c.compiler.GetRulesWithPrefix(ref)) > 0 {
			continue
		}
		p := problem{text: fmt.Sprintf("%s: no rule defines it, and no data files are loaded", ref)}
		if d.loc != nil {
			p.file, p.line = d.loc.File, d.loc.Row
		}
		c.problems = append(c.problems, p)
	}
}

// unread finds rules that nothing asks for: they are not of the contract, and
// no rule of the contract reads them, through however many others.
func (c *checker) unread() {
	read := map[string]bool{}
	var queue []any
	c.rules(func(m *ast.Module, r *ast.Rule) {
		if asked(m, r) {
			queue = append(queue, r)
		}
	})
	seen := map[any]bool{}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if seen[next] {
			continue
		}
		seen[next] = true
		if r, ok := next.(*ast.Rule); ok {
			read[r.Ref().GroundPrefix().String()] = true
		}
		for dep := range c.compiler.Graph.Dependencies(next) {
			queue = append(queue, dep)
		}
	}
	listed := map[string]bool{}
	c.rules(func(m *ast.Module, r *ast.Rule) {
		name := r.Ref().GroundPrefix().String()
		if read[name] || listed[name] || isLibraryPackage(m) && !policy.IsAsked(ruleName(r)) {
			return
		}
		listed[name] = true
		c.problems = append(c.problems, problem{file: r.Loc().File, line: r.Loc().Row, text: unreadText(m, r)})
	})
}

// rules calls f with each rule, in the order of files and lines.
func (c *checker) rules(f func(*ast.Module, *ast.Rule)) {
	for _, name := range slices.Sorted(maps.Keys(c.compiler.Modules)) {
		for _, r := range c.compiler.Modules[name].Rules {
			f(c.compiler.Modules[name], r)
		}
	}
}

// asked: the rule is of the contract.
func asked(m *ast.Module, r *ast.Rule) bool {
	name := ruleName(r)
	if isCompat(m) {
		return name == policy.Allow
	}
	return !isLibraryPackage(m) && policy.IsAsked(name)
}

func ruleName(r *ast.Rule) string {
	name, _ := r.Head.Ref()[0].Value.(ast.Var)
	return string(name)
}

// isLibraryPackage: signet.lib.…, whose rules may be there for policies to come.
func isLibraryPackage(m *ast.Module) bool {
	return strings.HasPrefix(m.Package.Path.String(), "data.signet.lib.")
}

// pluginResults are rules that opa-envoy-plugin's examples put together to the result.
var pluginResults = []string{
	"allowed", "body", "dynamic_metadata", "headers", "http_status", "query_parameters_to_remove", "query_parameters_to_set",
	"request_headers_to_remove", "response_headers_to_add", "result", "status_code",
}

func unreadText(m *ast.Module, r *ast.Rule) string {
	name := ruleName(r)
	if isLibraryPackage(m) {
		return fmt.Sprintf("rule %s: nobody reads it: of a library nothing is asked; it belongs in package signet.authz or a node's", name)
	}
	contract := []string{policy.Allow, policy.Deny, policy.Headers}
	if isCompat(m) {
		if slices.Contains(pluginResults, name) {
			return fmt.Sprintf("rule %s: nobody reads it: of package envoy.authz only allow is asked, true or an object of allowed, headers and request_headers_to_remove", name)
		}
		contract = contract[:1]
	}
	best := nearest(name, contract)
	if best == "" && slices.Contains([]string{policy.Deny, "denied", "violation", "violations"}, name) {
		best = policy.Deny
	}
	switch {
	case best != "" && slices.Contains(contract, best):
		return fmt.Sprintf("rule %s: nobody reads it; did you mean %s?", name, best)
	case isCompat(m):
		return fmt.Sprintf("rule %s: nobody reads it: of package envoy.authz only allow is asked", name)
	}
	return fmt.Sprintf("rule %s: nobody reads it: %s are asked, and no rule of theirs reads %s (tests do not count; helpers for later stand in package signet.lib.<name>)",
		name, strings.Join(contract, ", "), name)
}

// compatFields are what is read of an object that envoy.authz's allow is.
var compatFields = []string{"allowed", "headers", "request_headers_to_remove"}

// compatResult finds forms of envoy.authz's allow that nobody reads.
func (c *checker) compatResult() {
	ref := ast.MustParseRef("data.envoy.authz.allow")
	if !c.compat || len(c.compiler.GetRulesWithPrefix(ref)) == 0 {
		return // Compile refuses it
	}
	c.resultType(c.compiler.TypeEnv.GetByRef(ref))
}

func (c *checker) resultType(t types.Type) {
	switch t := t.(type) {
	case types.Boolean, nil:
	case types.Any:
		if len(t) == 0 {
			c.atAllow("", "its form cannot be told: want true, or an object of "+strings.Join(compatFields, ", "), true)
		}
		for _, part := range t {
			c.resultType(part)
		}
	case *types.Object:
		for _, p := range t.StaticProperties() {
			if key, _ := p.Key.(string); !slices.Contains(compatFields, key) {
				c.atAllow(key, fmt.Sprintf("%s: nobody reads it: of the object %s count", key, strings.Join(compatFields, ", ")), false)
			}
		}
		if t.DynamicProperties() != nil {
			c.atAllow("", "the object's names are computed, so that it cannot be checked whether they are read: "+strings.Join(compatFields, ", ")+" count", false)
		}
	default:
		c.atAllow("", fmt.Sprintf("it can be a %s, which allows nothing: want true, or an object of %s", types.Sprint(t), strings.Join(compatFields, ", ")), false)
	}
}

// atAllow adds a problem of the result, where the key is written if it can be found.
func (c *checker) atAllow(key, text string, warning bool) {
	var at *ast.Location
	c.rules(func(m *ast.Module, r *ast.Rule) {
		if !isCompat(m) {
			return
		}
		ast.WalkTerms(r, func(t *ast.Term) bool {
			if s, ok := t.Value.(ast.String); ok && key != "" && string(s) == key && t.Location != nil && at == nil {
				at = t.Location
			}
			return false
		})
	})
	c.rules(func(m *ast.Module, r *ast.Rule) {
		if at == nil && isCompat(m) && ruleName(r) == policy.Allow && !r.Default {
			at = r.Loc()
		}
	})
	p := problem{text: "rule allow: " + text, warning: warning}
	if at != nil {
		p.file, p.line = at.File, at.Row
	}
	c.problems = append(c.problems, p)
}

// maxListed bounds how many problems one error or one list of warnings names.
const maxListed = 20

func (c *checker) result() (warnings []string, err error) {
	slices.SortStableFunc(c.problems, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	var refused []string
	for _, p := range c.problems {
		if p.warning {
			warnings = append(warnings, p.String())
		} else {
			refused = append(refused, p.String())
		}
	}
	if len(refused) > 0 {
		err = errors.New(strings.Join(shortList(refused), "\n"))
	}
	return append(shortList(warnings), c.general...), err
}

func shortList(list []string) []string {
	if len(list) <= maxListed {
		return list
	}
	return append(list[:maxListed:maxListed], fmt.Sprintf("and %d more", len(list)-maxListed))
}
