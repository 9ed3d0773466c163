package policy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"signet.example/internal/lanes"
	"signet.example/policy/sandbox"
	"signet.example/proxy"
)

// Compiled is a revision that is ready to evaluate. It is immutable.
type Compiled struct {
	rev      Revision
	compiler *ast.Compiler
	// store has no data. It returns AST values: the evaluator's default store
	// converts on each read, which costs 10 µs a decision.
	store storage.Store
	// nodes are the packages of nodes that there are; programs has one for each
	// set of them that is asked together, by their names; mesh is that of none.
	nodes    map[string]bool
	programs map[string]*program
	mesh     *program
	compat   *query
	// compatHeaders are those that package envoy.authz sets or takes away by constant names.
	compatHeaders []string
	exempt        map[exemptKey]Exemption
	observed      map[string]bool // identities
	tracing       chan struct{}
	lanes         *lanes.Lanes
}

type exemptKey struct {
	destination, method, target string
	port                        uint32
}

// program is what is asked for one destination.
type program struct {
	// sets asks all allow and deny sets; allows only the former, for tracing.
	sets, allows *query
	headers      *query
	// allow and deny find a name's rule, by the variable that holds its set.
	allow, deny map[ast.Var]map[string]RuleRef
	// rules are all allow rules by where they stand.
	rules map[position]RuleRef
	// settable are the headers that the header rules can set.
	settable []string
	// contested are packages whose allow rules hold for no node.
	contested []string
}

// mostSlow are the slow evaluations of one destination that go on or wait, each of which has one of
// the 256 turns of authz meanwhile: an eighth of them, so that others are left to other destinations.
const mostSlow = 32

// slowLanes are those of slow evaluations, by destination: one that used up its time is only ever
// answered by an error.
var slowLanes = sync.OnceValue(func() *lanes.Lanes {
	l := lanes.New()
	l.Most = mostSlow
	return l
})

// query is a compiled query; both parts may be used by many goroutines.
type query struct {
	body     ast.Body
	compiler ast.QueryCompiler
}

type position struct {
	file     string
	row, col int
}

// Compile parses, checks and prepares a revision. Its ID must be the hash of
// its content, so that what a route is stamped with is what was tested.
func Compile(r Revision) (*Compiled, error) {
	if want := r.hash(); r.ID != want {
		return nil, fmt.Errorf("policy revision %.40q: its content is that of revision %s", r.ID, want)
	}
	c := &Compiled{
		rev:      r,
		store:    inmem.NewFromObjectWithOpts(map[string]any{}, inmem.OptReturnASTValuesOnRead(true)),
		nodes:    map[string]bool{},
		programs: map[string]*program{},
		exempt:   map[exemptKey]Exemption{},
		observed: map[string]bool{},
		tracing:  make(chan struct{}, maxTracing),
		lanes:    slowLanes(),
	}
	for _, id := range r.Observed {
		c.observed[id] = true
	}
	sandbox.Fence()
	modules, all, err := parse(r.Modules)
	if err != nil {
		return nil, fmt.Errorf("policy revision %s: %w", r.ID, err)
	}
	if c.compiler, err = compileModules(modules); err != nil {
		return nil, fmt.Errorf("policy revision %s: %w", r.ID, err)
	}
	if err := c.prepare(all); err != nil {
		return nil, fmt.Errorf("policy revision %s: %w", r.ID, err)
	}
	return c, c.addExemptions()
}

// Revision returns what was compiled.
func (c *Compiled) Revision() Revision { return c.rev }

func compileModules(modules map[string]*ast.Module) (*ast.Compiler, error) {
	if err := addLibraries(modules); err != nil {
		return nil, err
	}
	compiler := newCompiler()
	if compiler.Compile(modules); compiler.Failed() {
		return nil, shorten(compiler.Errors)
	}
	return compiler, nil
}

func newCompiler() *ast.Compiler {
	return ast.NewCompiler().WithCapabilities(sandbox.Capabilities()).WithStrict(true).WithDefaultRegoVersion(ast.RegoV1)
}

func addLibraries(modules map[string]*ast.Module) error {
	for _, lib := range libraries() {
		if _, ok := modules[lib.Path]; ok {
			return fmt.Errorf("%s: the name is that of a library of Signet", lib.Path)
		}
		p, err := parseModule(lib)
		if err != nil {
			return fmt.Errorf("internal error: %w", err)
		}
		modules[lib.Path] = p.module
	}
	return nil
}

// shorten keeps the first errors, which name file and line each.
func shorten(errs ast.Errors) error {
	const most = 10
	var out []error
	for i, e := range errs {
		if i == most {
			out = append(out, fmt.Errorf("and %d more", len(errs)-most))
			break
		}
		out = append(out, e)
	}
	return errors.Join(out...)
}

func (c *Compiled) prepare(all []parsed) error {
	compat := false
	for _, p := range all {
		if p.node != "" {
			c.nodes[p.node] = true
		}
		if p.compat {
			compat, c.compatHeaders = true, append(c.compatHeaders, p.headers...)
		}
	}
	var err error
	if c.mesh, err = c.newProgram(all, ""); err != nil {
		return err
	}
	for _, asked := range c.askedTogether() {
		if c.programs[programKey(asked)], err = c.newProgram(all, append([]string{""}, asked...)...); err != nil {
			return err
		}
	}
	if compat {
		ref := ast.MustParseRef("data.envoy.authz.allow")
		if len(c.compiler.GetRulesExact(ref)) == 0 {
			return errors.New("package envoy.authz: it has no rule allow")
		}
		c.compat, err = c.query([]string{fmt.Sprintf("result = [x | x = %s]", ref)})
	}
	return err
}

// newProgram prepares the queries over the packages of the nodes ("" is the
// mesh's). What a package that several nodes claim allows, it allows to none of
// them, since it was written for one; what it denies holds for each.
func (c *Compiled) newProgram(all []parsed, nodes ...string) (*program, error) {
	p := &program{allow: map[ast.Var]map[string]RuleRef{}, deny: map[ast.Var]map[string]RuleRef{}, rules: map[position]RuleRef{}}
	var allows, denies, headers []string
	for i, n := range nodes {
		contested := slices.Contains(c.rev.Contested, n)
		if contested {
			p.contested = append(p.contested, PackageName(n))
		}
		if ref := setRef(n, Allow); c.has(ref) && !contested {
			v := fmt.Sprintf("allow%d", i)
			allows = append(allows, fmt.Sprintf("%s = %s", v, ref))
			p.allow[ast.Var(v)] = c.names(ref, p.rules)
		}
		if ref := setRef(n, Deny); c.has(ref) {
			v := fmt.Sprintf("deny%d", i)
			denies = append(denies, fmt.Sprintf("%s = %s", v, ref))
			p.deny[ast.Var(v)] = c.names(ref, nil)
		}
		if ref := setRef(n, Headers); c.has(ref) && !contested {
			headers = append(headers, fmt.Sprintf("headers%d = [x | x = %s]", i, ref))
		}
	}
	for _, m := range all {
		if m.served && slices.Contains(nodes, m.node) {
			p.settable = append(p.settable, m.headers...)
		}
	}
	slices.Sort(p.settable)
	p.settable = slices.Compact(p.settable)
	var err error
	if p.sets, err = c.query(append(slices.Clone(allows), denies...)); err != nil {
		return nil, err
	}
	if p.allows, err = c.query(allows); err != nil {
		return nil, err
	}
	p.headers, err = c.query(headers)
	return p, err
}

func (c *Compiled) has(ref ast.Ref) bool { return len(c.rulesOf(ref)) > 0 }

// rulesOf returns the rules of a document, also those with a longer head such as headers["x"].
func (c *Compiled) rulesOf(ref ast.Ref) []*ast.Rule { return c.compiler.GetRulesWithPrefix(ref) }

// names maps each name of a set to its first rule, and adds all to positions.
func (c *Compiled) names(ref ast.Ref, positions map[position]RuleRef) map[string]RuleRef {
	out := map[string]RuleRef{}
	rules := slices.Clone(c.rulesOf(ref))
	slices.SortFunc(rules, func(a, b *ast.Rule) int { return a.Loc().Compare(b.Loc()) })
	for _, r := range rules {
		name := string(r.Head.Key.Value.(ast.String)) // checkNamedRule
		rr := RuleRef{Name: name, File: r.Loc().File, Line: r.Loc().Row}
		if _, ok := out[name]; !ok {
			out[name] = rr
		}
		if positions != nil {
			positions[positionOf(r.Loc())] = rr
		}
	}
	return out
}

func positionOf(l *ast.Location) position { return position{l.File, l.Row, l.Col} }

// query compiles expressions joined by "and"; none is nil, which is never asked.
func (c *Compiled) query(exprs []string) (*query, error) {
	if len(exprs) == 0 {
		return nil, nil
	}
	body, err := ast.ParseBodyWithOpts(strings.Join(exprs, "; "), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, fmt.Errorf("internal error: query: %w", err)
	}
	qc := c.compiler.QueryCompiler().WithContext(ast.NewQueryContext())
	if body, err = qc.Compile(body); err != nil {
		return nil, fmt.Errorf("internal error: query: %w", err)
	}
	return &query{body: body, compiler: qc}, nil
}

func (c *Compiled) addExemptions() error {
	for _, e := range c.rev.Exemptions {
		ask := e.Method == http.MethodGet || e.Method == http.MethodPost && e.Path == proxy.GRPCHealthCheck
		if !ask || e.Name == "" || e.Path == "" || e.Path[0] != '/' {
			return fmt.Errorf("policy revision %s: exemption %q: want a name and GET on a path, or POST on %s", c.rev.ID, e.Name, proxy.GRPCHealthCheck)
		}
		key := exemptKey{e.Destination, e.Method, e.Path, e.Port}
		e.Sources, e.Ingress = slices.Concat(c.exempt[key].Sources, e.Sources), slices.Concat(c.exempt[key].Ingress, e.Ingress)
		c.exempt[key] = e
	}
	return nil
}
