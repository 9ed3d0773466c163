package policy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// compatPairs is the view of the request that policies written for
// opa-envoy-plugin know: Envoy's CheckRequest in its JSON form, with repeated
// headers joined, and path and query taken apart.
func (in Input) compatPairs() [][2]*ast.Term {
	r := in.Request
	headers := make(map[string]string, len(r.Headers)+4)
	for name, values := range r.Headers {
		headers[name] = strings.Join(values, ",")
	}
	headers[":path"], headers[":method"], headers[":authority"] = r.Target(), r.Method, r.Host
	if r.Scheme != "" {
		headers[":scheme"] = r.Scheme
	}
	request := obj(
		"method", str(r.Method), "path", str(r.Target()), "host", str(r.Host),
		"scheme", str(r.Scheme), "protocol", str(r.Protocol), "headers", stringsTerm(headers),
	)
	return [][2]*ast.Term{
		{str("attributes"), obj(
			"request", obj("http", request, "time", str(in.Time.UTC().Format(time.RFC3339Nano))),
			"source", principal(in.Source), "destination", principal(in.Destination),
		)},
		{str("parsed_path"), listTerm(r.Segments)},
		{str("parsed_query"), listsTerm(r.Query)},
		{str("version"), obj("encoding", str("protojson"), "ext_authz", str("v3"))},
	}
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
		if h := v.Get(str("headers")); ok && h != nil {
			err = addHeaders(headers, h.Value)
		}
		if h := v.Get(str("request_headers_to_remove")); ok && err == nil && h != nil {
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
			return nil, errors.New("request_headers_to_remove has what is no name")
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
