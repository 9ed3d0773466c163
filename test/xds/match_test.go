package xdstest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
	"signet.example/xds/predict"
)

// matching has a node for each route, of the same name: who answers is who matched.
// The routes stand in an order in which none of them would match as it should.
const matching = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: shop}
spec: {awsName: shop.internal, provider: {virtualRouter: {virtualRouterRef: {name: shop}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: shop}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 81, protocol: http}}]
  routes:
`

var matchingRoutes = []struct{ name, match, more string }{
	{"all", "prefix: /", ""},
	{"method", "prefix: /, method: DELETE", ""},
	{"secure", "prefix: /, scheme: https", ""},
	{"query", "prefix: /q, queryParameters: [{name: v, match: {exact: '2'}}, {name: debug}]", ""},
	{"users", "path: {regex: '/users/[0-9]+(?:/orders)?'}", ""},
	{"longer", "prefix: /users/7/orders/of/last/year/too", ""},
	{"exact", "path: {exact: /users/7}", ""},
	{"regex", "prefix: /h, headers: [{name: x-v, match: {regex: 'v[0-9]+'}}]", ""},
	{"range", "prefix: /h, headers: [{name: x-age, match: {range: {start: -3, end: 18}}}]", ""},
	{"not", "prefix: /h, headers: [{name: x-v, match: {regex: 'v[0-9]+'}, invert: true}, {name: x-gone, invert: true}]", ""},
	{"first", "prefix: /users, headers: [{name: x-first}]", "priority: 3"},
	{"other", "prefix: /", ""},
}

func TestRoutesMatchAsTheirSpecsSay(t *testing.T) {
	text, callees := matching, []callee(nil)
	for _, r := range matchingRoutes {
		port := 80
		if r.name == "other" {
			port = 81
		}
		text += fmt.Sprintf("    - {name: %s, httpRoute: {match: {port: %d, %s}, action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: 1}]}}", r.name, port, r.match, r.name)
		if r.more != "" {
			text += ", " + r.more
		}
		text += "}\n"
		callees = append(callees, callee{r.name, plain("http"), answers(r.name)})
	}
	c := startCaller(t, text, []string{"shop"}, callees...)
	routes := c.routes(t, text)
	for _, row := range []struct{ request, headers, want string }{
		{"GET http://shop.internal/", "", "all"},
		{"GET http://shop.internal:81/users/7", "", "other"},
		{"DELETE http://shop.internal/x", "", "method"},
		{"GET http://shop.internal/q?debug&v=2", "", "query"},
		{"GET http://shop.internal/q?debug=&v=2", "", "query"},
		{"GET http://shop.internal/q?v=2", "", "all"},
		{"GET http://shop.internal/q?debug&v=22", "", "all"},
		{"GET http://shop.internal/users/12", "", "users"},
		{"GET http://shop.internal/users/12/orders?x=/", "", "users"},
		{"GET http://shop.internal/users/12/orders/3", "", "all"}, // an expression is of the whole path
		{"GET http://shop.internal/users/x", "", "all"},
		{"GET http://shop.internal/users/7", "", "exact"},
		{"GET http://shop.internal/users/7/orders/of/last/year/too", "", "longer"},
		{"GET http://shop.internal/users/7", "X-First: 1", "first"}, // priority before length
		{"GET http://shop.internal/h", "X-V: v12", "regex"},
		{"GET http://shop.internal/h", "X-V: v12x", "not"},
		{"GET http://shop.internal/h", "X-V: v12x\r\nX-Gone: 1", "all"},
		{"GET http://shop.internal/h", "X-Age: 17", "range"},
		{"GET http://shop.internal/h", "X-Age: -3", "range"},
		{"GET http://shop.internal/h", "X-Age: 18", "all"},
		{"GET http://shop.internal/h", "X-Age: young", "all"},
		// A header that is not there has no value that could be another one.
		{"GET http://shop.internal/h", "", "all"},
	} {
		headers := ""
		if row.headers != "" {
			headers = row.headers + "\r\n"
		}
		r := raw(t, c.out, row.request+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+headers+"\r\n")
		if corpus.Status(r) != 200 {
			t.Errorf("%s %s: %d", row.request, row.headers, corpus.Status(r))
			continue
		}
		if by := r.Header.Get("X-By"); by != row.want {
			t.Errorf("%s %s: %s, want %s", row.request, row.headers, by, row.want)
		}
		if by := predicted(t, routes, row.request, headers); by != row.want {
			t.Errorf("%s %s: %s is predicted, want %s", row.request, row.headers, by, row.want)
		}
	}
	c.predictsMany(t, routes)
	// Only HTTP/2 says https where there is no TLS: in HTTP/1 Envoy refuses it.
	for scheme, want := range map[string]int{"http": 200, "https": 202} {
		if code := headers2(t, c.out, [2]string{":method", "GET"}, [2]string{":scheme", scheme}, [2]string{":authority", "shop.internal"}, [2]string{":path", "/x"}); code != want {
			t.Errorf("scheme %s: %d, want %d", scheme, code, want)
		}
	}
}

// routes are those by which front calls.
func (c *caller) routes(t *testing.T, manifest string) *routev3.RouteConfiguration {
	t.Helper()
	return routesOf(t, c.with(t, manifest), "rds_egress")
}

// routesOf are those of a case whose name begins so.
func routesOf(t *testing.T, of xdstest.Case, prefix string) *routev3.RouteConfiguration {
	t.Helper()
	set, err := xds.Build(of.Input, of.Ref(), of.Shape)
	if err != nil {
		t.Fatal(err)
	}
	rc := &routev3.RouteConfiguration{}
	for _, r := range set.Type(ads.RouteType) {
		if strings.HasPrefix(r.Name, prefix) {
			if err := proto.Unmarshal(r.Body, rc); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rc
}

// predicted is the route that is foretold for a request in absolute form.
func predicted(t *testing.T, rc *routev3.RouteConfiguration, line, headers string) string {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	scheme, rest, _ := strings.Cut(target, "://")
	at := strings.IndexByte(rest, '/')
	r := predict.Request{Method: method, Scheme: scheme, Authority: rest[:at], Path: rest[at:], Headers: map[string][]string{}}
	for h := range strings.SplitSeq(headers, "\r\n") {
		if name, value, ok := strings.Cut(h, ": "); ok {
			name = strings.ToLower(name)
			r.Headers[name] = append(r.Headers[name], value)
		}
	}
	out, err := predict.Of(rc, r)
	if err != nil {
		t.Fatal(err)
	}
	if out.Route == nil {
		return ""
	}
	return out.Route.GetName()
}

// predictsMany holds generated requests against what Envoy did with them.
func (c *caller) predictsMany(t *testing.T, rc *routev3.RouteConfiguration) {
	t.Helper()
	n := 500
	if os.Getenv("SOAK") == "1" {
		n = 5000
	}
	r := rand.New(rand.NewPCG(7, uint64(n)))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	kinds := map[string]int{}
	for range n {
		line := pick("GET", "GET", "POST", "DELETE", "PUT") + " http://" + pick("shop.internal", "SHOP.internal", "shop.internal:80", "shop.internal:81", "other.internal", "shop.internal:82") +
			pick("/", "/q", "/users/7", "/users/7/orders", "/users/77/orders", "/users/x", "/users", "/h", "/hh", "/Q", "/users/7/orders/of/last/year/too", "/users/7/orders/of/last/year/too/long") +
			pick("", "", "?", "?v=2", "?v=2&debug", "?debug=&v=2", "?v=3&v=2&debug", "?v=2&v=3&debug=0", "?V=2&debug", "?x=/users/7")
		headers := ""
		for range r.IntN(4) {
			headers += pick("X-V: v1", "X-V: v12", "X-V: V1", "X-V: w", "X-Age: 0", "X-Age: 17", "X-Age: 18", "X-Age: -3", "X-Age: +5", "X-Age: 5x", "X-Gone: 1", "X-First: 1", "X-First: ") + "\r\n"
		}
		got := raw(t, c.out, line+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+headers+"\r\n")
		by := got.Header.Get("X-By")
		if corpus.Status(got) != 200 && corpus.Status(got) != 404 {
			t.Fatalf("%s %q: %d", line, headers, corpus.Status(got))
		}
		kinds[by]++
		if want := predicted(t, rc, line, headers); by != want {
			t.Errorf("%s %q: Envoy took %q, and %q was predicted", line, headers, by, want)
		}
	}
	t.Logf("%d requests, by route: %v", n, kinds)
	if len(kinds) < len(matchingRoutes)-2 {
		t.Errorf("only %d routes were taken", len(kinds))
	}
}

// regexOf makes an expression of what occurs in those that people write, and of what
// makes a program large.
func regexOf(r *rand.Rand, depth int) string {
	atoms := []string{"a", "/", ".", `\.`, "[a-z]", "[^/]", `\d`, `\w`, `\W`, `\S`, "[[:alpha:]-]", "(?i)k", `\pL`, `\p{Greek}`, "(?s).", "^", "$", `\b`, "é", "[é-ü]", "foo", "[0-9a-fA-F]", `\x41`, `\Qa.b\E`, "(?P<n>x)", "(?<n>y)", "", `\C`, "{", "**", "(", `\z`, `\A`, `[\pN_]`}
	if depth == 0 || r.IntN(3) == 0 {
		return atoms[r.IntN(len(atoms))]
	}
	one := func() string { return regexOf(r, depth-1) }
	low := r.IntN(30)
	switch r.IntN(7) {
	case 0:
		return "(" + one() + "|" + one() + "|" + one() + ")"
	case 1:
		return "(?:" + one() + ")" + []string{"*", "+", "?", "*?", "+?", "??"}[r.IntN(6)]
	case 2:
		return fmt.Sprintf("(?:%s){%d,%d}", one(), low, low+r.IntN(40))
	case 3:
		return fmt.Sprintf("(%s){%d}", one(), r.IntN(60))
	case 4:
		return fmt.Sprintf("(?:%s){%d,}", one(), low)
	default:
		return one() + one() + one()
	}
}

func routerOf(name string, regexes []string) string {
	text := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: " + name + "}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes:\n"
	for i, re := range regexes {
		text += fmt.Sprintf("    - {name: r%d, httpRoute: {match: {path: {regex: '%s'}}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}}}\n", i, re)
	}
	return text
}

func TestEnvoyTakesEveryRegularExpressionThatAMeshTakes(t *testing.T) {
	want := 400
	if os.Getenv("SOAK") == "1" {
		want = 4000
	}
	r := rand.New(rand.NewPCG(1, 2))
	var taken []string
	refused := 0
	for len(taken) < want {
		re := regexOf(r, 4)
		docs, err := mesh.Split("r.yaml", []byte(routerOf("r", []string{re})))
		if err != nil || len(re) > 255 {
			continue
		}
		if _, err := mesh.Parse(docs[0]); err != nil {
			refused++
			continue
		}
		if re != "" {
			taken = append(taken, re)
		}
	}
	t.Logf("%d taken, %d refused", len(taken), refused)
	// A node has at most 50 backends, a router 50 routes.
	for some := range slices.Chunk(taken, 50*50) {
		checkRegexes(t, some)
	}
}

func checkRegexes(t *testing.T, regexes []string) {
	t.Helper()
	text := new(strings.Builder)
	text.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\n" +
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  backends:\n")
	i, routers := 0, ""
	for some := range slices.Chunk(regexes, 50) {
		name := fmt.Sprintf("s%d", i)
		i++
		fmt.Fprintf(text, "    - virtualService: {virtualServiceRef: {name: %s}}\n", name)
		routers += "---\n" + routerOf(name, some) + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: " + name + "}\nspec: {provider: {virtualRouter: {virtualRouterRef: {name: " + name + "}}}}\n"
	}
	text.WriteString(routers)
	c := xdstest.Case{
		Name: "n", Mesh: "shop", Node: "n", Shape: xdstest.Shape,
		Input: xds.Input{Graph: xdstest.Graph(t, "mesh.yaml", []byte(text.String())), TrustDomain: xdstest.TrustDomain, Endpoints: func(proxy.Ref, uint32) []xds.Endpoint { return nil }},
	}
	c.Shape.Bind = loopback()
	c.Shape.Egress = xdstest.EgressOn(c.Shape.Bind)
	startProxy(t, c, newPKI(t))
}
