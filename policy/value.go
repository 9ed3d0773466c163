package policy

import (
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"signet.example/proxy"
)

// Keys of the input document, made once.
var (
	keyRequest     = ast.StringTerm("request")
	keySource      = ast.StringTerm("source")
	keyDestination = ast.StringTerm("destination")
	keyJWT         = ast.StringTerm("jwt")
	keyTime        = ast.StringTerm("time")
	keyMethod      = ast.StringTerm("method")
	keyPath        = ast.StringTerm("path")
	keySegments    = ast.StringTerm("segments")
	keyQuery       = ast.StringTerm("query")
	keyHost        = ast.StringTerm("host")
	keyHeaders     = ast.StringTerm("headers")
	keyHeaderLines = ast.StringTerm("header_lines")
	keyProtocol    = ast.StringTerm("protocol")
	keySpiffeID    = ast.StringTerm("spiffe_id")
	keyTrustDomain = ast.StringTerm("trust_domain")
	keyMesh        = ast.StringTerm("mesh")
	keyVirtualNode = ast.StringTerm("virtual_node")
	keyConnection  = ast.StringTerm("connection")
	keyPort        = ast.StringTerm("port")
	keyIngress     = ast.StringTerm("ingress")
)

// value is the input document, made directly of AST terms: going by way of Go
// maps and their conversion costs as much again as a simple policy.
func (in Input) value(compat bool) ast.Value {
	pairs := make([][2]*ast.Term, 0, 8)
	what := [2]*ast.Term{keyRequest, nil}
	if in.Connection != nil { // it has no request, so that no rule that names a part of one holds
		what = [2]*ast.Term{keyConnection, in.Connection.term()}
	} else {
		what[1] = in.Request.term()
	}
	pairs = append(pairs, what,
		[2]*ast.Term{keySource, in.Source.term()},
		[2]*ast.Term{keyDestination, in.Destination.term()},
		[2]*ast.Term{keyTime, ast.StringTerm(in.Time.UTC().Format(time.RFC3339Nano))},
	)
	if in.JWT != nil {
		pairs = append(pairs, [2]*ast.Term{keyJWT, in.JWT.term})
	}
	if compat {
		pairs = append(pairs, in.compatPairs()...)
	}
	return ast.NewObject(pairs...)
}

func (c Connection) term() *ast.Term {
	return ast.ObjectTerm([2]*ast.Term{keyProtocol, ast.StringTerm(c.Protocol)}, [2]*ast.Term{keyPort, ast.UIntNumberTerm(uint64(c.Port))})
}

func (r Request) term() *ast.Term {
	headers, lines := headerTerms(r.Headers)
	pairs := append(make([][2]*ast.Term, 0, 9),
		[2]*ast.Term{keyMethod, ast.StringTerm(r.Method)},
		[2]*ast.Term{keyPath, ast.StringTerm(r.Path)},
		[2]*ast.Term{keySegments, listTerm(r.Segments)},
		[2]*ast.Term{keyQuery, listsTerm(r.Query)},
		[2]*ast.Term{keyHost, ast.StringTerm(r.Host)},
		[2]*ast.Term{keyHeaders, headers},
		[2]*ast.Term{keyHeaderLines, lines},
		[2]*ast.Term{keyProtocol, ast.StringTerm(r.Protocol)},
	)
	if r.Port != 0 {
		pairs = append(pairs, [2]*ast.Term{keyPort, ast.UIntNumberTerm(uint64(r.Port))})
	}
	return ast.ObjectTerm(pairs...)
}

// term of an unverified peer is the empty object, unless it is known by where it is.
func (p Peer) term() *ast.Term {
	switch {
	case p.ID.IsZero() && p.Ingress != "":
		return ast.ObjectTerm([2]*ast.Term{keyIngress, ast.StringTerm(p.Ingress)})
	case p.ID.IsZero():
		return ast.ObjectTerm()
	}
	pairs := [][2]*ast.Term{
		{keySpiffeID, ast.StringTerm(p.ID.String())},
		{keyTrustDomain, ast.StringTerm(p.ID.TrustDomain().Name())},
		{keyPath, ast.StringTerm(p.ID.Path())},
	}
	if node, ok := p.node(); ok {
		pairs = append(pairs, [2]*ast.Term{keyMesh, ast.StringTerm(node.Mesh)}, [2]*ast.Term{keyVirtualNode, ast.StringTerm(node.Name)})
	}
	return ast.ObjectTerm(pairs...)
}

// node is the virtual node that an identity /<mesh>/<virtual node> is of; Signet's own
// are of none.
func (p Peer) node() (proxy.Ref, bool) {
	mesh, name, ok := strings.Cut(strings.TrimPrefix(p.ID.Path(), "/"), "/")
	return proxy.Node(mesh, name), ok && mesh != packageRoot && !strings.Contains(name, "/")
}

func listTerm(list []string) *ast.Term {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.ArrayTerm(terms...)
}

func listsTerm(lists map[string][]string) *ast.Term {
	pairs := make([][2]*ast.Term, 0, len(lists))
	for k, v := range lists {
		pairs = append(pairs, [2]*ast.Term{ast.StringTerm(k), listTerm(v)})
	}
	return ast.ObjectTerm(pairs...)
}
