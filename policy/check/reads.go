package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"signet.example/internal/manifest"
	"signet.example/policy"
	"signet.example/proxy"
)

func nearest(name string, words []string) string { return manifest.Nearest(name, words) }

// problem is one thing that is wrong with a policy, by file and line.
type problem struct {
	file string
	line int
	text string
	// warning: the policy is served all the same.
	warning bool
}

func (p problem) String() string { return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.text) }

// reader looks at everything that a policy reads of the input, and finds what
// the input never has. It needs modules whose imports are resolved and whose
// local variables still have their names. What goes through a rule or a
// function is the type checker's, which has the same shape as its schema.
type reader struct {
	input *shape
	// rules are other names for a part of the input, as in
	// http := input.attributes.request.http.
	rules map[string]part
	// documents are what is read of data.
	documents []document
	problems  []problem

	// of the rule that is looked at:
	loc    *ast.Location
	vars   map[ast.Var]part
	strict bool // what is computed is refused
}

// part of the input, by its path there.
type part struct {
	path string
	is   *shape
}

type document struct {
	ref ast.Ref
	loc *ast.Location
}

func (r *reader) read(modules map[string]*ast.Module) {
	r.rules = map[string]part{}
	names := slices.Sorted(maps.Keys(modules))
	for range 2 { // another name of another name
		for _, name := range names {
			for _, rule := range modules[name].Rules {
				r.remember(modules[name], rule)
			}
		}
	}
	for _, name := range names {
		m := modules[name]
		if policy.IsLibrary(m) {
			continue
		}
		r.strict = isCompat(m)
		for _, rule := range m.Rules {
			r.rule(rule)
		}
	}
}

func isCompat(m *ast.Module) bool { return m.Package.Path.String() == "data.envoy.authz" }

// remember keeps a rule that is another name for a part of the input.
func (r *reader) remember(m *ast.Module, rule *ast.Rule) {
	if p, ok := r.otherName(rule); ok {
		r.rules[m.Package.Path.String()+"."+rule.Head.Name.String()] = p
	}
}

func (r *reader) otherName(rule *ast.Rule) (part, bool) {
	if len(rule.Head.Args) > 0 || rule.Head.Key != nil || rule.Head.Value == nil || rule.Else != nil || len(rule.Head.Ref()) != 1 {
		return part{}, false
	}
	p, ok := r.part(rule.Head.Value, nil)
	return p, ok && p.is.kind == isObject
}

func (r *reader) rule(rule *ast.Rule) {
	r.loc, r.vars = rule.Loc(), map[ast.Var]part{}
	ast.WalkExprs(rule, func(e *ast.Expr) bool {
		if v, value, ok := assigned(e); ok {
			p, ok := r.part(value, nil)
			if old, twice := r.vars[v]; twice && old != p {
				ok = false // one name in two scopes
			}
			if r.vars[v] = p; !ok {
				r.vars[v] = part{}
			}
		}
		return false
	})
	for rule := rule; rule != nil; rule = rule.Else {
		if _, ok := r.otherName(rule); ok {
			r.part(rule.Head.Value, r.tell) // reads of it are looked at where it is read
		} else {
			r.walk(rule.Head)
		}
		r.walk(rule.Body)
	}
}

// assigned returns the variable and value of v := value and v = value.
func assigned(e *ast.Expr) (ast.Var, *ast.Term, bool) {
	terms, ok := e.Terms.([]*ast.Term)
	if !ok || len(terms) != 3 {
		return "", nil, false
	}
	return assignment(terms)
}

func assignment(call []*ast.Term) (ast.Var, *ast.Term, bool) {
	if op := call[0].String(); len(call) != 3 || op != ast.Assign.Name && op != ast.Equality.Name {
		return "", nil, false
	}
	v, ok := call[1].Value.(ast.Var)
	return v, call[2], ok
}

func (r *reader) walk(x any) { ast.NewGenericVisitor(r.visit).Walk(x) }

// visit looks at x, and reports whether it has seen to what is below x itself.
func (r *reader) visit(x any) bool {
	switch x := x.(type) {
	case *ast.Expr:
		return r.expr(x)
	case *ast.With:
		if target, ok := x.Target.Value.(ast.Ref); ok && len(target) > 1 {
			r.part(x.Target, r.tell)
		}
		r.walk(x.Value)
		return true
	case *ast.Term:
		switch v := x.Value.(type) {
		case ast.Call:
			r.call(v)
			return true
		case ast.Ref, ast.Var:
			if p, ok := r.part(x, r.tell); ok && p.is.kind == isObject {
				r.computed(x, p)
			}
			r.inside(v)
			return true
		}
	}
	return false
}

// inside looks at what stands in a reference's brackets.
func (r *reader) inside(v ast.Value) {
	if ref, ok := v.(ast.Ref); ok {
		for _, t := range ref[1:] {
			r.walk(t)
		}
	}
}

func (r *reader) expr(e *ast.Expr) bool {
	switch terms := e.Terms.(type) {
	case []*ast.Term:
		r.call(terms)
	case *ast.Term:
		if _, ok := terms.Value.(ast.Ref); !ok {
			return false
		}
		r.part(terms, r.tell) // whether it is there at all
		r.inside(terms.Value)
	default:
		return false
	}
	for _, w := range e.With {
		r.walk(w)
	}
	return true
}

// call looks at a function's operands.
func (r *reader) call(terms []*ast.Term) {
	args := terms[1:]
	switch op := terms[0].String(); op {
	case ast.Print.Name:
		return
	case ast.ObjectGet.Name:
		if len(args) == 3 && r.get(args[0], args[1]) {
			args = args[2:]
		}
	case ast.Equality.Name, ast.Equal.Name, ast.NotEqual.Name, ast.Assign.Name:
		if v, value, ok := assignment(terms); ok && r.vars[v].is != nil {
			r.part(value, r.tell)
			r.inside(value.Value)
			return
		}
		if len(args) == 2 {
			r.compare(args[0], args[1])
			r.compare(args[1], args[0])
		}
	case "data.signet.lib.http.values":
		if len(args) == 1 {
			r.withheld(args[0], args[0])
		}
	case ast.Member.Name:
		if len(args) == 2 {
			r.member(args[0], args[1])
		}
	}
	r.operands(terms[0].String(), terms[1:])
	for _, a := range args {
		r.walk(a)
	}
}

// withheld warns of a header that proxies take from requests before a policy
// sees them, unless a mesh lets it through by name.
func (r *reader) withheld(at, name *ast.Term) {
	s, ok := name.Value.(ast.String)
	if !ok {
		return
	}
	lower := strings.ToLower(string(s))
	for _, w := range proxy.WithheldHeaders() {
		if slices.Contains(w.Headers, lower) {
			r.add(at, fmt.Sprintf("header %s is taken from requests before a policy sees them, but where the Mesh has %s: %s", lower, proxy.UnsafeAnnotation, w.Unsafe), true)
		}
	}
}

// get is object.get(from, key, …) with a constant key, which is a path as good
// as from.key. It reports whether it has seen to both operands.
func (r *reader) get(from, key *ast.Term) bool {
	p, ok := r.part(from, nil)
	if !ok || p.is.kind != isObject {
		return false
	}
	steps := []*ast.Term{key}
	if a, ok := key.Value.(*ast.Array); ok {
		steps = steps[:0]
		a.Foreach(func(t *ast.Term) { steps = append(steps, t) })
	}
	p, ok = r.follow(p, steps, key, r.tell)
	if ok && p.is.kind == isObject {
		r.computed(from, p)
	}
	r.walk(key)
	return true
}

// compare finds what is held against a text that it never is.
func (r *reader) compare(what, with *ast.Term) {
	literal, ok := with.Value.(ast.String)
	if !ok {
		return
	}
	p, ok := r.part(what, nil)
	if !ok {
		return
	}
	path := p.path
	if steps := strings.TrimPrefix(path, "input.request.segments"); steps != path && steps != "" {
		path = "input.request.segments[_]"
	}
	if p.is.kind == isList {
		r.tell(what, fmt.Sprintf("%s is a list, which no text equals: write %s in %s", p.path, with, p.path))
	} else if why := neverText(path, string(literal)); why != "" {
		r.tell(what, fmt.Sprintf("%s is never %s: %s", p.path, with, why))
	}
}

// operands finds lists and texts that a function does not take: it would be
// undefined or an error with each request.
func (r *reader) operands(op string, args []*ast.Term) {
	builtin := ast.BuiltinMap[op]
	if builtin == nil || builtin.Infix != "" {
		return
	}
	wants := builtin.Decl.FuncArgs().Args
	for i, a := range args[:min(len(args), len(wants))] {
		p, ok := r.part(a, nil)
		if !ok {
			continue
		}
		want := wants[i]
		if named, ok := want.(*types.NamedType); ok {
			want = named.Type
		}
		_, wantsText := want.(types.String)
		_, wantsList := want.(*types.Array)
		switch {
		case p.is.kind == isList && wantsText:
			r.tell(a, fmt.Sprintf("%s is a list, and %s wants a text: write %s[_]", p.path, op, p.path))
		case p.is.kind == isText && wantsList:
			r.tell(a, fmt.Sprintf("%s is a text, and %s wants a list", p.path, op))
		}
	}
}

// member finds a list that is looked for among texts.
func (r *reader) member(what, in *ast.Term) {
	p, ok := r.part(what, nil)
	if !ok || p.is.kind != isList {
		return
	}
	textual := func(t *ast.Term) bool { _, ok := t.Value.(ast.String); return ok }
	among := false
	switch v := in.Value.(type) {
	case ast.Set:
		among = v.Len() > 0 && !v.Until(func(t *ast.Term) bool { return !textual(t) })
	case *ast.Array:
		among = v.Len() > 0 && !v.Until(func(t *ast.Term) bool { return !textual(t) })
	}
	if among {
		r.tell(what, fmt.Sprintf("%s is a list, which is none of these texts: write %s[_] in it", p.path, p.path))
	}
}

// part returns the part of the input that a term names. tell, if there is one,
// is called with what the input never has.
func (r *reader) part(t *ast.Term, tell func(*ast.Term, string)) (part, bool) {
	switch v := t.Value.(type) {
	case ast.Var:
		p := r.vars[v]
		return p, p.is != nil
	case ast.Ref:
		head, rest, ok := r.head(v)
		if ok {
			return r.follow(head, rest, t, tell)
		}
		if tell != nil && v[0].Equal(ast.DefaultRootDocument) {
			r.documents = append(r.documents, document{v, t.Location})
		}
	}
	return part{}, false
}

// head finds what a reference begins with, and what it selects of that.
func (r *reader) head(ref ast.Ref) (part, []*ast.Term, bool) {
	if ref[0].Equal(ast.InputRootDocument) {
		return part{"input", r.input}, ref[1:], true
	}
	if v, ok := ref[0].Value.(ast.Var); ok {
		if p := r.vars[v]; p.is != nil {
			return p, ref[1:], true
		}
	}
	for n := 2; n <= len(ref); n++ {
		if p, ok := r.rules[ref[:n].String()]; ok {
			return p, ref[n:], true
		}
	}
	return part{}, nil, false
}

// follow goes from a part to what the terms select of it.
func (r *reader) follow(p part, steps []*ast.Term, at *ast.Term, tell func(*ast.Term, string)) (part, bool) {
	header := false
	for _, t := range steps {
		next, why, computed := p.is.step(t, header)
		switch {
		case next != nil:
		case computed && tell != nil:
			r.computed(at, p)
			return part{}, false
		case tell != nil:
			tell(at, fmt.Sprintf("%s: the input never has this: %s", selected(p.path, t), why))
			return part{}, false
		default:
			return part{}, false
		}
		if header && tell != nil {
			r.withheld(at, t)
		}
		name, _ := t.Value.(ast.String)
		header = name == "headers" || name == "header_lines"
		p = part{selected(p.path, t), next}
	}
	return p, true
}

func selected(path string, t *ast.Term) string {
	if s, ok := t.Value.(ast.String); ok && ast.IsVarCompatibleString(string(s)) {
		return path + "." + string(s)
	}
	return path + "[" + t.String() + "]"
}

func (r *reader) tell(at *ast.Term, text string) { r.add(at, text, false) }

// computed is called where a policy reads by a name that is not a constant, or
// hands on a part as a whole.
func (r *reader) computed(at *ast.Term, p part) {
	r.add(at, fmt.Sprintf("%s is read by a computed name or handed on whole, so that it cannot be checked whether the input has what is read of it: name its fields (%s)",
		p.path, p.is.fieldNames()), !r.strict)
}

func (r *reader) add(at *ast.Term, text string, warning bool) {
	loc := at.Location
	if loc == nil || loc.File == "" {
		loc = r.loc
	}
	p := problem{loc.File, loc.Row, text, warning}
	if !slices.Contains(r.problems, p) {
		r.problems = append(r.problems, p)
	}
}
