package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"signet.example/policy/sandbox"
	"signet.example/policy/tree"
)

// Limits of a module, beside those of a tree (repo).
const (
	maxRuleName = 200
	maxNesting  = 8
)

// maxListed bounds how many mistakes of one module are named.
const maxListed = 20

const packageRoot = "signet"

// The rules of a policy that are asked for.
const (
	Allow   = "allow"
	Deny    = "deny"
	Headers = "headers"
)

// Beginnings of names that no rule of a policy has: those of Signet's own rules, and of
// exemptions.
const (
	OwnRule       = "signet:"
	generatedRule = "generated:"
)

// IsAsked reports whether rules of this name are asked for.
func IsAsked(name string) bool { return name == Allow || name == Deny || name == Headers }

// Parsed are modules that keep the contract, for what is said of them before they are
// served (package check).
type Parsed struct {
	// Modules by path, the libraries among them.
	Modules map[string]*ast.Module
	// Compat: there is one of package envoy.authz.
	Compat bool
}

// Parse reads modules as Compile does.
func Parse(modules []Module) (Parsed, error) {
	byPath, all, err := parse(modules)
	if err == nil {
		err = addLibraries(byPath)
	}
	return Parsed{byPath, slices.ContainsFunc(all, func(p parsed) bool { return p.compat })}, err
}

// NewCompiler returns a compiler that knows what a policy may call.
func NewCompiler() *ast.Compiler { return newCompiler() }

// parsed is one module with what its package says of it.
type parsed struct {
	module *ast.Module
	// node is whose rules they are, as in Package.Node; "" for signet.authz.
	node string
	// served: the package is signet.authz or that of a node.
	served bool
	// compat: the package is envoy.authz.
	compat bool
	// headers are the names that its headers rules can set; of envoy.authz those that it sets or
	// takes away, as far as they are constants.
	headers []string
}

// parse reads the modules and holds their packages and rules to the contract.
func parse(modules []Module) (map[string]*ast.Module, []parsed, error) {
	if err := checkSizes(modules); err != nil {
		return nil, nil, err
	}
	byPath := map[string]*ast.Module{}
	var all []parsed
	var errs []error
	for _, m := range modules {
		if _, ok := byPath[m.Path]; ok {
			errs = append(errs, fmt.Errorf("%s: given twice", m.Path))
			continue
		}
		p, err := parseModule(m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if IsLibrary(p.module) {
			errs = append(errs, fmt.Errorf("%s: %s is a library of Signet", m.Path, p.module.Package))
			continue
		}
		byPath[m.Path] = p.module
		all = append(all, p)
	}
	return byPath, all, errors.Join(errs...)
}

func checkSizes(modules []Module) error {
	if len(modules) > tree.MaxModules {
		return fmt.Errorf("%d modules: at most %d", len(modules), tree.MaxModules)
	}
	total := 0
	for _, m := range modules {
		if len(m.Rego) > tree.MaxModuleSize {
			return fmt.Errorf("%s: %d bytes: at most %d", m.Path, len(m.Rego), tree.MaxModuleSize)
		}
		total += len(m.Rego)
	}
	if total > tree.MaxTotalSize {
		return fmt.Errorf("%d bytes of Rego: at most %d", total, tree.MaxTotalSize)
	}
	return nil
}

func parseModule(m Module) (parsed, error) {
	mod, err := ast.ParseModuleWithOpts(m.Path, m.Rego, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: sandbox.Capabilities()})
	if err != nil {
		return parsed{}, oneLineEach(err)
	}
	if mod == nil {
		return parsed{}, fmt.Errorf("%s: empty module", m.Path)
	}
	p, err := classify(mod, m.IsTest())
	if err != nil {
		return parsed{}, fmt.Errorf("%s:%d: %w", m.Path, mod.Package.Loc().Row, err)
	}
	if p.compat {
		p.headers = compatHeaders(mod)
	}
	var errs []error
	for _, r := range mod.Rules {
		if err := errors.Join(sandbox.CheckCalls(r), p.checkRule(r, m.IsTest())); err != nil && len(errs) < maxListed {
			errs = append(errs, fmt.Errorf("%s:%d: %w", m.Path, r.Loc().Row, err))
		}
	}
	return p, errors.Join(errs...)
}

// oneLineEach has file, line and message of a parser's errors, and leaves out
// the excerpts that it draws below them.
func oneLineEach(err error) error {
	var list ast.Errors
	if !errors.As(err, &list) {
		return err
	}
	var errs []error
	for _, e := range list[:min(len(list), maxListed)] {
		if e.Location == nil {
			errs = append(errs, errors.New(e.Message))
			continue
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s", e.Location.File, e.Location.Row, e.Message))
	}
	return errors.Join(errs...)
}

// classify reports what a package is for, and refuses one that nothing would ever ask.
func classify(mod *ast.Module, test bool) (parsed, error) {
	p := parsed{module: mod}
	var name []string
	for _, t := range mod.Package.Path[1:] { // after "data"
		s, ok := t.Value.(ast.String)
		if !ok {
			return p, fmt.Errorf("%s: not a constant name", mod.Package)
		}
		name = append(name, string(s))
	}
	last := name[len(name)-1]
	isTest := test && strings.HasSuffix(last, "_test")
	switch full := strings.Join(name, "."); {
	case full == "signet.authz":
		p.served = true
	case isTest && (name[0] == packageRoot || full == "envoy.authz_test"):
	case (len(name) == 3 || len(name) == 4) && name[0] == packageRoot && name[1] == "authz":
		p.served, p.node = true, strings.Join(name[2:], "/")
		return p, checkNodePackage(mod.Package, name[2:])
	case len(name) >= 3 && name[0] == packageRoot && name[1] == "lib":
	case full == "envoy.authz":
		p.compat = true
	default:
		return p, fmt.Errorf("%s: want signet.authz, signet.authz.<node>, signet.authz.<mesh>.<node>, signet.lib.<name> or envoy.authz", mod.Package)
	}
	return p, nil
}

// checkNodePackage refuses names that would be those of a rule: package
// signet.authz.deny is the rule deny of package signet.authz.
func checkNodePackage(p *ast.Package, names []string) error {
	for i, name := range names {
		if IsAsked(name) {
			above := strings.Join(append([]string{"signet.authz"}, names[:i]...), ".")
			return fmt.Errorf("%s: it would be the rule %s of package %s; write the node's rules in package signet.authz, by input.destination", p, name, above)
		}
		if name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("%s: %q is not the name of a mesh or virtual node", p, name)
		}
	}
	return nil
}

func (p *parsed) checkRule(r *ast.Rule, test bool) error {
	if err := checkNesting(r); err != nil {
		return err
	}
	ref := r.Head.Ref()
	kind := ref[0].Value.String()
	if !p.served {
		if p.compat && test && kind == Allow {
			return errors.New("rule allow in a test file: it would be tested and not served")
		}
		return nil
	}
	switch {
	case !IsAsked(kind):
		return checkHelper(ref)
	case test:
		return fmt.Errorf("rule %s in a test file: it would be tested and not served", kind)
	case kind == Headers:
		names, err := headerNames(r)
		p.headers = append(p.headers, names...)
		return err
	}
	return checkNamedRule(r, kind)
}

// checkNesting: the compiler takes twice as long for each comprehension inside
// of another, and cannot be stopped.
func checkNesting(r *ast.Rule) error {
	depth, deepest := 0, 0
	step := func(x any, by int) {
		switch x.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, *ast.Every:
			depth += by
			deepest = max(deepest, depth)
		}
	}
	ast.NewBeforeAfterVisitor(
		func(x any) bool { step(x, 1); return depth > maxNesting },
		func(x any) { step(x, -1) },
	).Walk(r)
	if deepest > maxNesting {
		return fmt.Errorf("comprehensions nested more than %d deep", maxNesting)
	}
	return nil
}

// checkHelper refuses what looks like a decision and would never be asked for,
// such as orders.allow in package signet.authz.
func checkHelper(ref ast.Ref) error {
	for _, t := range ref[1:] {
		if s, ok := t.Value.(ast.String); ok && (s == Allow || s == Deny) {
			return fmt.Errorf("rule %s: decisions of a node stand in its own package signet.authz.<mesh>.<node>", ref)
		}
	}
	return nil
}

// checkNamedRule wants allow and deny to be sets of constant names: a name is
// a rule's id in explanations, so no input may get into it.
func checkNamedRule(r *ast.Rule, kind string) error {
	if len(r.Head.Ref()) != 1 || r.Head.Key == nil || r.Head.Value != nil {
		return fmt.Errorf("rule %s: want a set of names: %s contains \"who may do what\" if { … }", kind, kind)
	}
	name, ok := r.Head.Key.Value.(ast.String)
	if !ok {
		return fmt.Errorf("rule %s: its name must be a constant string, not %s", kind, r.Head.Key)
	}
	s := string(name)
	switch {
	case strings.TrimSpace(s) != s || s == "" || len(s) > maxRuleName || strings.ContainsFunc(s, unprintable) || !utf8.ValidString(s):
		return fmt.Errorf("rule %s: name %q: want 1 to %d printable bytes", kind, s, maxRuleName)
	case strings.HasPrefix(s, generatedRule) || strings.HasPrefix(s, OwnRule):
		return fmt.Errorf("rule %s: name %q: this prefix is Signet's own", kind, s)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// setRef returns data.signet.authz.<kind>, or that of a node's package.
func setRef(node, kind string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument, ast.StringTerm(packageRoot), ast.StringTerm("authz")}
	if node != "" {
		for name := range strings.SplitSeq(node, "/") {
			ref = append(ref, ast.StringTerm(name))
		}
	}
	return append(ref, ast.StringTerm(kind))
}
