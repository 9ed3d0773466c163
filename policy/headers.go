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

// forbiddenHeader tells why a policy may not set a header: it would speak in
// Signet's or Envoy's name, re-route the request, or change its framing.
func forbiddenHeader(name string) error {
	switch {
	case name == "" || len(name) > 128:
		return errors.New("want a name of 1 to 128 bytes")
	case name[0] == ':':
		return errors.New("pseudo-headers cannot be set")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("want lower-case letters, digits and '-'")
	case strings.HasPrefix(name, "x-signet-"), strings.HasPrefix(name, "x-envoy-"), name == "x-forwarded-client-cert":
		return errors.New("the header is Signet's or Envoy's own")
	}
	switch name {
	case "host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "trailer", "content-length", "expect":
		return errors.New("the header decides where or how the request goes on")
	}
	return nil
}

// checkHeaderRule refuses at compile time what can be seen then: constant names.
func checkHeaderRule(r *ast.Rule) error {
	if r.Head.Key != nil && r.Head.Value == nil {
		return errors.New("rule headers: want an object of name and string")
	}
	for _, name := range settableHeaders([]*ast.Rule{r}) {
		if err := forbiddenHeader(name); err != nil {
			return fmt.Errorf("rule headers: %q: %w", name, err)
		}
	}
	return nil
}

// settableHeaders returns the constant names that header rules set, whether by
// headers["name"] := …, headers := {"name": …} or an else branch.
func settableHeaders(rules []*ast.Rule) []string {
	var out []string
	for _, r := range rules {
		ref := r.Head.Ref()
		for i, t := range ref {
			if s, ok := t.Value.(ast.String); ok && i > 0 && (string(ref[i-1].Value.String()) == kindHeaders || isString(ref[i-1], kindHeaders)) {
				out = append(out, string(s))
			}
		}
		if r.Head.Key != nil {
			if s, ok := r.Head.Key.Value.(ast.String); ok && len(ref) == 1 {
				out = append(out, string(s))
			}
		}
		out = append(out, objectKeys(r)...)
	}
	return out
}

func isString(t *ast.Term, s string) bool {
	v, ok := t.Value.(ast.String)
	return ok && string(v) == s
}

// objectKeys collects the keys of all objects that a rule's value is made of.
func objectKeys(r *ast.Rule) []string {
	var out []string
	for ; r != nil; r = r.Else {
		if r.Head.Value == nil {
			continue
		}
		if o, ok := r.Head.Value.Value.(ast.Object); ok && len(r.Head.Ref()) == 1 {
			o.Foreach(func(k, _ *ast.Term) {
				if s, ok := k.Value.(ast.String); ok {
					out = append(out, string(s))
				}
			})
		}
	}
	return out
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
