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
	"signet.example/mesh/graphtest"
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

// matchingAfter is what a change makes of some of them; without a match a route is gone.
var matchingAfter = map[string]struct{ match, more string }{
	"method": {"", ""},
	"query":  {"prefix: /q, queryParameters: [{name: v, match: {exact: '3'}}]", ""},
	"users":  {"path: {regex: '/users/[0-9]{2,}(?:/orders)?'}", ""},
	"exact":  {"path: {exact: /users/7}", "priority: 9"},
	"regex":  {"prefix: /h, headers: [{name: x-v, match: {regex: 'w|v1'}}]", ""},
	"range":  {"prefix: /h, headers: [{name: x-age, match: {range: {start: 5, end: 19}}}]", "priority: 1"},
	"other":  {"prefix: /users", ""},
	"longer": {"prefix: /users/7/orders/of", ""},
}

// matchingText is the manifest of routes, with what a change makes of them.
func matchingText(after map[string]struct{ match, more string }) string {
	text := matching
	for _, r := range matchingRoutes {
		port := 80
		if r.name == "other" {
			port = 81
		}
		if to, ok := after[r.name]; ok {
			r.match, r.more = to.match, to.more
		}
		if r.match == "" {
			continue
		}
		text += fmt.Sprintf("    - {name: %s, httpRoute: {match: {port: %d, %s}, action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: 1}]}}", r.name, port, r.match, r.name)
		if r.more != "" {
			text += ", " + r.more
		}
		text += "}\n"
	}
	return text
}

func TestRoutesMatchAsTheirSpecsSay(t *testing.T) {
	text, callees := matchingText(nil), []callee(nil)
	for _, r := range matchingRoutes {
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
	// Only HTTP/2 says https where there is no TLS: in HTTP/1 Envoy refuses it.
	for scheme, want := range map[string]int{"http": 200, "https": 202} {
		if code := headers2(t, c.out, [2]string{":method", "GET"}, [2]string{":scheme", scheme}, [2]string{":authority", "shop.internal"}, [2]string{":path", "/x"}); code != want {
			t.Errorf("scheme %s: %d, want %d", scheme, code, want)
		}
	}
	if comesBack(t, c.proxy.envoy, c.with(t, text)) > 0 {
		t.Error("not all of it comes back from the dump")
	}
	c.predictsMany(t, routes, matchingText(matchingAfter))
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
	out, err := predict.Of(rc, requestOf(line, headers))
	if err != nil {
		t.Fatal(err)
	}
	if out.Route == nil {
		return ""
	}
	return out.Route.GetName()
}

func requestOf(line, headers string) predict.Request {
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
	return r
}

// sent is a request in absolute form.
type sent struct{ line, headers string }

// manyRequests are generated ones.
func manyRequests(n int) []sent {
	r := rand.New(rand.NewPCG(7, 7))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	var list []sent
	for range n {
		line := pick("GET", "GET", "POST", "DELETE", "PUT") + " http://" + pick("shop.internal", "SHOP.internal", "shop.internal:80", "shop.internal:81", "other.internal", "shop.internal:82") +
			pick("/", "/q", "/users/7", "/users/7/orders", "/users/77/orders", "/users/x", "/users", "/h", "/hh", "/Q", "/users/7/orders/of/last/year/too", "/users/7/orders/of/last/year/too/long") +
			pick("", "", "?", "?v=2", "?v=2&debug", "?debug=&v=2", "?v=3&v=2&debug", "?v=2&v=3&debug=0", "?V=2&debug", "?x=/users/7")
		headers := ""
		for range r.IntN(4) {
			headers += pick("X-V: v1", "X-V: v12", "X-V: V1", "X-V: w", "X-Age: 0", "X-Age: 17", "X-Age: 18", "X-Age: -3", "X-Age: +5", "X-Age: 5x", "X-Gone: 1", "X-First: 1", "X-First: ") + "\r\n"
		}
		list = append(list, sent{line, headers})
	}
	return list
}

// asSent is a request that was made up for routes.
func asSent(r predict.Request) sent {
	headers := ""
	for name, values := range r.Headers {
		for _, v := range values {
			headers += name + ": " + v + "\r\n"
		}
	}
	return sent{r.Method + " " + r.Scheme + "://" + r.Authority + r.Path, headers}
}

// predictsMany holds what is foretold of generated requests, and of those that `signet diff
// --effect` makes up, against what Envoy does with them before and after a change.
func (c *caller) predictsMany(t *testing.T, before *routev3.RouteConfiguration, changed string) {
	t.Helper()
	n := 500
	if os.Getenv("SOAK") == "1" {
		n = 5000
	}
	after := c.routes(t, changed)
	list := manyRequests(n)
	for _, pair := range predict.Changed(before, after) {
		for _, r := range pair.Requests() {
			if r.Scheme == "http" { // the other is refused in HTTP/1
				list = append(list, asSent(r))
			}
		}
	}
	var was, is []string
	was = c.answered(t, before, list)
	c.proxy.publish(c.with(t, changed), newPKI(t))
	c.proxy.settle()
	eventually(t, "the change is in force", func() bool { return c.by(t, sent{"DELETE http://shop.internal/x", ""}) == "all" })
	is = c.answered(t, after, list)
	differ, made := 0, 0
	for i, r := range list {
		d, foretold, err := predict.Compare(before, after, requestOf(r.line, r.headers))
		if err != nil {
			t.Fatal(err)
		}
		if was[i] != is[i] {
			differ++
			if i >= n {
				made++
			}
		}
		if (was[i] != is[i]) != foretold || foretold && d.Why == "" {
			t.Errorf("%s %q: %q before and %q after; that it is another is foretold: %t, %q", r.line, r.headers, was[i], is[i], foretold, d.Why)
		}
	}
	t.Logf("%d of %d requests end in another way after the change; of the %d that were made up %d", differ, len(list), len(list)-n, made)
	if made < len(matchingAfter) {
		t.Errorf("the change of %d routes shows in %d of the requests that were made up", len(matchingAfter), made)
	}
}

// by is who answers, "" for 404.
func (c *caller) by(t *testing.T, r sent) string {
	t.Helper()
	got := raw(t, c.out, r.line+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+r.headers+"\r\n")
	if corpus.Status(got) != 200 && corpus.Status(got) != 404 {
		t.Fatalf("%s %q: %d", r.line, r.headers, corpus.Status(got))
	}
	return got.Header.Get("X-By")
}

// answered is who answers each; it must be who was predicted.
func (c *caller) answered(t *testing.T, rc *routev3.RouteConfiguration, list []sent) []string {
	t.Helper()
	var all []string
	kinds := map[string]int{}
	for _, r := range list {
		by := c.by(t, r)
		kinds[by]++
		all = append(all, by)
		if want := predicted(t, rc, r.line, r.headers); by != want {
			t.Errorf("%s %q: Envoy took %q, and %q was predicted", r.line, r.headers, by, want)
		}
	}
	t.Logf("%d requests, by route: %v", len(list), kinds)
	if len(kinds) < len(matchingRoutes)-3 {
		t.Errorf("only %d routes were taken", len(kinds))
	}
	return all
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
		Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text.String())), TrustDomain: xdstest.TrustDomain, Endpoints: func(proxy.Ref, uint32) []xds.Endpoint { return nil }},
	}
	c.Shape.Bind = loopback()
	c.Shape.Egress = xdstest.EgressOn(c.Shape.Bind)
	startProxy(t, c, newPKI(t))
}
