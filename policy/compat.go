package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// compatPairs is the view of the request that policies written for
// opa-envoy-plugin know: Envoy's CheckRequest in its JSON form, in which what is
// empty is left out, with path and query taken apart. It is what the plugin
// gives, byte for byte: nothing in it is made canonical as in input.request.
func (in Input) compatPairs() [][2]*ast.Term {
	if in.Connection != nil { // what the plugin gives of one
		return [][2]*ast.Term{
			{str("attributes"), obj("source", principal(in.Source), "destination", principal(in.Destination))},
			{str("version"), obj("encoding", str("protojson"), "ext_authz", str("v3"))},
		}
	}
	r := in.Request
	path, query, _ := strings.Cut(r.RawTarget, "?")
	request := []any{"http", r.compatHTTP()}
	if !r.Received.IsZero() {
		request = append(request, "time", str(protoTime(r.Received)))
	}
	return [][2]*ast.Term{
		{str("attributes"), obj("request", obj(request...), "source", principal(in.Source), "destination", principal(in.Destination))},
		{str("parsed_path"), listTerm(parsedPath(path))},
		{str("parsed_query"), listsTerm(parsedQuery(query))},
		{str("version"), obj("encoding", str("protojson"), "ext_authz", str("v3"))},
	}
}

func (r Request) compatHTTP() *ast.Term {
	headers := make(map[string]string, len(r.Headers)+4)
	for name, values := range r.Headers {
		headers[name] = strings.Join(values, ",")
	}
	fields := make([]any, 0, 12)
	for _, f := range [][3]string{
		{"method", ":method", r.Method},
		{"path", ":path", r.RawTarget},
		{"host", ":authority", r.Authority},
		{"scheme", ":scheme", r.Scheme},
		{"protocol", "", r.Protocol},
	} {
		if f[2] == "" {
			continue
		}
		fields = append(fields, f[0], str(f[2]))
		if f[1] != "" {
			headers[f[1]] = f[2]
		}
	}
	return obj(append(fields, "headers", stringsTerm(headers))...)
}

// parsedPath has the parts of the path, decoded: of "/" one that is empty, and
// an empty one at the end where the path ends with a slash.
func parsedPath(path string) []string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		decoded = path // package authz refused it
	}
	return strings.Split(strings.TrimLeft(decoded, "/"), "/")
}

// parsedQuery is Go's reading of a query, which leaves out what it cannot read.
func parsedQuery(query string) map[string][]string {
	values, _ := url.ParseQuery(query)
	return values
}

// protoTime is a time in protobuf's JSON form: with 0, 3, 6 or 9 digits of the second.
func protoTime(t time.Time) string {
	t = t.UTC()
	s := t.Format("2006-01-02T15:04:05.000000000")
	for range 3 {
		s = strings.TrimSuffix(s, "000")
	}
	return strings.TrimSuffix(s, ".") + "Z"
}

func principal(p Peer) *ast.Term {
	if p.ID.IsZero() {
		return ast.ObjectTerm()
	}
	return obj("principal", str(p.ID.String()))
}

func str(s string) *ast.Term { return ast.StringTerm(s) }

func obj(keysAndTerms ...any) *ast.Term {
	pairs := make([][2]*ast.Term, 0, len(keysAndTerms)/2)
	for i := 0; i < len(keysAndTerms); i += 2 {
		pairs = append(pairs, [2]*ast.Term{str(keysAndTerms[i].(string)), keysAndTerms[i+1].(*ast.Term)}) //nolint:gosec // they come in pairs
	}
	return ast.ObjectTerm(pairs...)
}

func stringsTerm(m map[string]string) *ast.Term {
	pairs := make([][2]*ast.Term, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, [2]*ast.Term{str(k), str(v)})
	}
	return ast.ObjectTerm(pairs...)
}

// The members of what allow is that say what is set in a request and taken from it.
const compatSets, compatRemoves = "headers", "request_headers_to_remove"

// compat asks data.envoy.authz.allow: true, or an object whose allowed is true
// and which may set and remove headers of the request. Builtin errors are undefined there, as under
// opa-envoy-plugin; all else that is not an allow is none.
func (e *evaluation) compat(ctx context.Context, d *Decision, headers http.Header) error {
	result, err := e.run(ctx, e.c.compat, false)
	if err != nil {
		return err
	}
	value, ok := only(result["result"])
	if !ok {
		return nil
	}
	switch v := value.(type) {
	case ast.Boolean:
		ok = bool(v)
	case ast.Object:
		allowed := v.Get(str("allowed"))
		ok = allowed != nil && allowed.Value.Compare(ast.Boolean(true)) == 0
		if h := v.Get(str(compatSets)); ok && h != nil {
			err = addHeaders(headers, h.Value)
		}
		if h := v.Get(str(compatRemoves)); ok && err == nil && h != nil {
			d.Unset, err = headersToRemove(h.Value)
		}
	default:
		ok = false
	}
	if ok && err == nil {
		d.Allow = append(d.Allow, e.c.compatRule())
	}
	return err
}

// headersToRemove reads a list of names. What cannot be done is an error: the
// policy relies on it.
func headersToRemove(list ast.Value) ([]string, error) {
	a, ok := list.(*ast.Array)
	if !ok || a.Len() > maxHeaders {
		return nil, fmt.Errorf("request_headers_to_remove is not a list of at most %d names", maxHeaders)
	}
	var names []string
	for i := range a.Len() {
		name, ok := a.Elem(i).Value.(ast.String)
		if !ok {
			return nil, errors.New("request_headers_to_remove has an element that is not a name")
		}
		lower := strings.ToLower(string(name))
		if err := forbiddenHeader(lower); err != nil {
			return nil, fmt.Errorf("request_headers_to_remove: a name is refused: %w", err)
		}
		names = append(names, lower)
	}
	return names, nil
}

func (c *Compiled) compatRule() RuleRef {
	rules := c.compiler.GetRulesExact(ast.MustParseRef("data.envoy.authz.allow"))
	for _, r := range rules {
		if !r.Default {
			return RuleRef{Name: "envoy.authz.allow", File: r.Loc().File, Line: r.Loc().Row}
		}
	}
	return RuleRef{Name: "envoy.authz.allow", File: rules[0].Loc().File, Line: rules[0].Loc().Row}
}

// compatHeaders are the headers that a module of package envoy.authz sets or takes away by constant
// names: in members of objects, and by rules of the same names.
func compatHeaders(mod *ast.Module) (names []string) {
	add := func(t *ast.Term) {
		if name, ok := t.Value.(ast.String); ok && forbiddenHeader(strings.ToLower(string(name))) == nil {
			names = append(names, strings.ToLower(string(name)))
		}
	}
	listed := func(name string, t *ast.Term) {
		if t == nil {
			return
		}
		switch v := t.Value.(type) {
		case ast.Object:
			if name == compatSets {
				v.Foreach(func(key, _ *ast.Term) { add(key) })
			}
		case *ast.Array:
			if name == compatRemoves {
				v.Foreach(add)
			}
		}
	}
	for _, name := range []string{compatSets, compatRemoves} {
		ast.WalkRules(mod, func(r *ast.Rule) bool {
			if ref := r.Head.Ref(); ref[0].Equal(ast.VarTerm(name)) {
				listed(name, r.Head.Value)
				if name == compatSets && len(ref) == 2 {
					add(ref[1])
				}
			}
			return false
		})
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if o, ok := t.Value.(ast.Object); ok {
				listed(name, o.Get(str(name)))
			}
			return false
		})
	}
	return names
}
