package policy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

const (
	maxHeaderValue = 4096
	maxHeaders     = 64
)

// forbiddenHeader reports why a policy may not set a header: it would speak in
// Signet's or Envoy's name, re-route the request, or change its framing.
func forbiddenHeader(name string) error {
	switch {
	case name == "" || len(name) > 128:
		return errors.New("want a name of 1 to 128 bytes")
	case name[0] == ':':
		return errors.New("pseudo-headers cannot be set")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("want lower-case letters, digits and '-'")
	case strings.HasPrefix(name, "x-signet-"), strings.HasPrefix(name, "x-envoy-"), strings.HasPrefix(name, "x-forwarded-"):
		return errors.New("the header is Signet's or Envoy's own")
	}
	switch name {
	case "host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "trailer", "content-length", "expect":
		return errors.New("the header decides where or how the request goes on")
	}
	return nil
}

// headerNames returns the names that a headers rule can set. They have to be
// constants: where no rule sets a header the client's own copy of it is taken
// away, so all of them must be known.
func headerNames(r *ast.Rule) ([]string, error) {
	var names []string
	for ; r != nil; r = r.Else {
		keys, err := headerKeys(r.Head)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			name, ok := k.Value.(ast.String)
			if !ok {
				return nil, fmt.Errorf("rule headers: a name must be a constant string, not %s", k)
			}
			if err := forbiddenHeader(string(name)); err != nil {
				return nil, fmt.Errorf("rule headers: %q: %w", string(name), err)
			}
			names = append(names, string(name))
		}
	}
	return names, nil
}

// headerKeys returns the x of headers[x] := …, or the keys of headers := {…}.
func headerKeys(h *ast.Head) ([]*ast.Term, error) {
	ref := h.Ref()
	if len(h.Args) == 0 && h.Value != nil {
		if len(ref) == 2 {
			return ref[1:], nil
		}
		if o, ok := h.Value.Value.(ast.Object); ok && len(ref) == 1 {
			return o.Keys(), nil
		}
	}
	return nil, errors.New(`rule headers: want headers["name"] := "value", or an object of such: headers := {"name": "value"}`)
}

// addHeaders merges one headers document. Two packages that set a header to
// different values are an error: neither may win by chance. No error has a
// name or value in it, since both may be made of the request.
func addHeaders(into http.Header, doc ast.Value) error {
	document, ok := doc.(ast.Object)
	if !ok {
		return errors.New("headers is not an object of name and string")
	}
	return document.Iter(func(k, v *ast.Term) error {
		name, ok := k.Value.(ast.String)
		value, ok2 := v.Value.(ast.String)
		if !ok || !ok2 {
			return errors.New("headers is not an object of name and string")
		}
		if err := forbiddenHeader(string(name)); err != nil {
			return fmt.Errorf("headers: a name is refused: %w", err)
		}
		if len(value) > maxHeaderValue || strings.ContainsFunc(string(value), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("headers: a value has control characters or more than %d bytes", maxHeaderValue)
		}
		canonical := http.CanonicalHeaderKey(string(name))
		if old, ok := into[canonical]; ok && old[0] != string(value) {
			return errors.New("headers: two packages set one header to different values")
		}
		into.Set(canonical, string(value))
		if len(into) > maxHeaders {
			return fmt.Errorf("headers: more than %d", maxHeaders)
		}
		return nil
	})
}
