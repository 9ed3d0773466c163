package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// shape is the form of one part of the input. It is what Input.value makes,
// written down a second time so that a policy can be held to it before it is
// served: a path that the input never has is undefined, and a deny rule that
// reads one never holds.
type shape struct {
	kind   shapeKind
	fields map[string]*shape // of an object
	// never names fields that other servers of this input have, and why they
	// are not here.
	never map[string]string
}

type shapeKind int

const (
	anything shapeKind = iota // such as the claims of a token
	isObject                  // these fields and no other
	isLists                   // name → list of texts
	isTexts                   // name → text
	isList                    // of texts
	isText
	isNumber
)

var (
	aText  = &shape{kind: isText}
	aPort  = &shape{kind: isNumber}
	aList  = &shape{kind: isList}
	noBody = "no request's body reaches a policy"
	noAddr = "an address says nothing about who calls; source.spiffe_id does"
)

func fields(f map[string]*shape) *shape { return &shape{kind: isObject, fields: f} }

// inputShape is the form of the whole input. Beside package envoy.authz, and
// only there, it has opa-envoy-plugin's view of the request, too.
func inputShape(compat bool) *shape {
	in := fields(map[string]*shape{
		"request": fields(map[string]*shape{
			"method": aText, "path": aText, "host": aText, "protocol": aText, "port": aPort, "segments": aList,
			"query": {kind: isLists}, "headers": {kind: isLists}, "header_lines": {kind: isLists},
		}),
		"connection": fields(map[string]*shape{"protocol": aText, "port": aPort}),
		"source":     sourceShape(), "destination": peerShape(),
		"jwt":  {kind: anything},
		"time": aText,
	})
	in.fields["request"].never = map[string]string{"body": noBody, "raw_body": noBody, "size": noBody}
	in.never = map[string]string{
		"parsed_body": noBody, "truncated_body": noBody,
		"attributes": "it is there beside package envoy.authz only; here, request and source have it",
	}
	in.never["parsed_path"], in.never["parsed_query"], in.never["version"] = in.never["attributes"], in.never["attributes"], in.never["attributes"]
	if compat {
		maps.Copy(in.fields, compatShape())
	}
	return in
}

func peerShape() *shape {
	p := fields(map[string]*shape{"spiffe_id": aText, "trust_domain": aText, "path": aText, "mesh": aText, "virtual_node": aText})
	p.never = map[string]string{"address": noAddr, "principal": "it is spiffe_id here"}
	return p
}

// sourceShape is a peer's, of which ingress is there in the place of all the rest.
func sourceShape() *shape {
	p := peerShape()
	p.fields["ingress"] = aText
	return p
}

// compatShape is what compatPairs gives.
func compatShape() map[string]*shape {
	http := fields(map[string]*shape{
		"method": aText, "path": aText, "host": aText, "scheme": aText, "protocol": aText, "headers": {kind: isTexts},
	})
	http.never = map[string]string{
		"body": noBody, "raw_body": noBody, "size": noBody, "rawBody": noBody,
		"id": "Envoy's number of a stream is not passed on", "query": "Envoy leaves it empty; parsed_query has it",
		"headerMap": "headers has them",
	}
	peer := func() *shape {
		p := fields(map[string]*shape{"principal": aText})
		p.never = map[string]string{"address": noAddr, "service": "Envoy leaves it empty", "labels": "Envoy leaves it empty", "certificate": "it is not passed on"}
		return p
	}
	attributes := fields(map[string]*shape{
		"request": fields(map[string]*shape{"http": http, "time": aText}),
		"source":  peer(), "destination": peer(),
	})
	none := "no other filter's metadata reaches a policy; verified claims are input.jwt"
	attributes.never = map[string]string{
		"metadataContext": none, "metadata_context": none, "routeMetadataContext": none,
		"contextExtensions": "they are Signet's own", "tlsSession": "it is not passed on",
	}
	return map[string]*shape{
		"attributes":  attributes,
		"parsed_path": aList, "parsed_query": {kind: isLists},
		"version": fields(map[string]*shape{"encoding": aText, "ext_authz": aText}),
	}
}

// schema is the shape as the JSON schema that OPA's type checker reads. Of an
// object with free names it can say only that it is one.
func (s *shape) schema() map[string]any {
	switch s.kind {
	case isObject:
		properties := map[string]any{}
		for name, f := range s.fields {
			properties[name] = f.schema()
		}
		return map[string]any{"type": "object", "properties": properties}
	case isLists, isTexts:
		return map[string]any{"type": "object"}
	case isList:
		return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
	case isText:
		return map[string]any{"type": "string"}
	case isNumber:
		return map[string]any{"type": "number"}
	}
	return map[string]any{}
}

// names of an object's fields, in order.
func (s *shape) names() []string { return slices.Sorted(maps.Keys(s.fields)) }

// step goes from one part to what t selects of it. why is set where the input
// never has that; computed is set where t is not a constant and could be none
// of the fields.
func (s *shape) step(t *ast.Term, header bool) (next *shape, why string, computed bool) {
	name, constant := t.Value.(ast.String)
	switch s.kind {
	case isObject:
		if !constant {
			_, number := t.Value.(ast.Number)
			return nil, "", !number
		}
		if f := s.fields[string(name)]; f != nil {
			return f, "", false
		}
		if why := s.never[string(name)]; why != "" {
			return nil, why, false
		}
		return nil, s.unknown(string(name)), false
	case isLists, isTexts:
		if header && constant {
			if why := neverHeader(string(name), s.kind == isLists); why != "" {
				return nil, why, false
			}
		}
		if s.kind == isTexts {
			return aText, "", false
		}
		return aList, "", false
	case isList:
		if constant {
			return nil, "it is a list: write \"…\" in it, or [_] after it", false
		}
		return aText, "", false
	case isText:
		return nil, "it is a text", false
	case isNumber:
		return nil, "it is a number", false
	}
	return s, "", false
}

// neverHeader reports why no request that a policy sees has a header of this name.
func neverHeader(name string, ours bool) string {
	lower := strings.ToLower(name)
	switch {
	case ours && strings.HasPrefix(name, ":"):
		return "request.method, path and host are what HTTP/2 calls so"
	case lower != name:
		return "header names are in lower case: " + lower
	case strings.Contains(name, "_"):
		return "proxies refuse headers with '_' in their name; did you mean [\"" + strings.ReplaceAll(name, "_", "-") + "\"]?"
	case strings.HasPrefix(name, "x-signet-"):
		return "a caller's own headers of this name are taken away before"
	}
	return ""
}

// neverText reports why no request has this text in a field.
func neverText(path, literal string) string {
	switch path {
	case "input.request.host":
		if literal != strings.ToLower(literal) || strings.Contains(literal, ":") && strings.Count(literal, ":") == 1 {
			return "it is in lower case and without port"
		}
	case "input.request.path":
		if !strings.HasPrefix(literal, "/") || strings.Contains(literal, "?") {
			return "it begins with a slash and has no query, which is input.request.query"
		}
	case "input.connection.protocol":
		if literal != "tcp" {
			return "it is tcp; that of HTTP is input.request.protocol"
		}
	case "input.request.segments[_]":
		if strings.Contains(literal, "/") {
			return "a segment has no slash"
		}
	}
	return ""
}

func (s *shape) unknown(name string) string {
	if best := nearest(name, s.names()); best != "" {
		return "did you mean " + best + "?"
	}
	return "there are " + s.fieldNames()
}

func (s *shape) fieldNames() string { return strings.Join(s.names(), ", ") }
