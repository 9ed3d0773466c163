package policy_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/policy"
	"signet.example/policy/sandbox"
	"signet.example/proxy"
	"signet.example/test/policytest"
)

var (
	web   = spiffeid.RequireFromString("spiffe://prod.example/shop/web")
	store = spiffeid.RequireFromString("spiffe://prod.example/shop/order-store")
	noon  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func compile(t testing.TB, files ...string) *policy.Compiled {
	t.Helper()
	c, err := policy.Compile(policy.NewRevision("file:///repo", "c0ffee", policytest.Modules(files...), policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func call(method, path string, source spiffeid.ID) policy.Input {
	return policy.Input{
		Request: policy.Request{
			Method: method, Path: path, RawTarget: path, Segments: strings.Split(strings.Trim(path, "/"), "/"),
			Host: "orders", Authority: "orders", Headers: map[string][]string{}, Query: map[string][]string{}, Protocol: "HTTP/1.1",
		},
		Source: policy.Peer{ID: source}, Destination: policy.Peer{ID: store}, Time: noon,
	}
}

func TestAllowNeedsSomeAllowAndNoDeny(t *testing.T) {
	c := compile(t, policytest.Mesh, policytest.Orders)
	withRole := call("GET", "/orders/1", web)
	withRole.Request.Headers["x-role"] = []string{"user, admin"}
	other := call("GET", "/orders/1", web)
	other.Destination.ID = spiffeid.RequireFromString("spiffe://prod.example/shop/stock")
	for name, tc := range map[string]struct {
		in          policy.Input
		allowed     bool
		allow, deny string
	}{
		"the service's rule":        {call("GET", "/orders/1", web), true, "web may read orders", ""},
		"the mesh's rule":           {call("GET", "/status", web), true, "every service may read status", ""},
		"no verified peer":          {call("GET", "/status", spiffeid.ID{}), false, "", ""},
		"another source":            {call("GET", "/orders/1", store), false, "", ""},
		"another service":           {other, false, "", ""},
		"deny wins":                 {withRole, false, "web may read orders", "no admin role"},
		"deny without any allow":    {call("GET", "/admin", web), false, "", "nobody reaches admin"},
		"no rule says yes":          {call("DELETE", "/orders/1", web), false, "", ""},
		"no token for a user's own": {call("POST", "/orders/1", web), false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := c.Evaluate(t.Context(), tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed != tc.allowed || names(d.Allow) != tc.allow || names(d.Deny) != tc.deny {
				t.Errorf("allowed %v by %q, denied by %q", d.Allowed, names(d.Allow), names(d.Deny))
			}
		})
	}
}

func names(rules []policy.RuleRef) string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Name)
	}
	return strings.Join(out, "|")
}

func TestDenialNamesTheExpressionThatStoppedEachAllowRule(t *testing.T) {
	c := compile(t, policytest.Mesh, policytest.Orders)
	in := call("POST", "/orders/bob", web)
	in.JWT = claims(t, "read write")
	d, err := c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := []policy.RuleRef{
		{Name: "every service may read status", File: "policies/a.rego", Line: 9, Expression: `input.request.method == "GET"`, ExpressionLine: 10},
		{Name: "users may write their own", File: "policies/b.rego", Line: 10, Expression: "is_own", ExpressionLine: 14},
		{Name: "web may read orders", File: "policies/b.rego", Line: 4, Expression: `input.request.method == "GET"`, ExpressionLine: 5},
	}
	if diff := cmp.Diff(want, d.Failed); diff != "" {
		t.Error(diff)
	}
	in.JWT = claims(t, "read")
	d, err = c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Failed[1]; got.Expression != `scope == "write"` || got.ExpressionLine != 13 {
		t.Errorf("stopped at %q line %d", got.Expression, got.ExpressionLine)
	}
}

func TestHeadersOnlyOnAllowAndTheUnsetAreNamed(t *testing.T) {
	c := compile(t, policytest.Mesh, policytest.Orders)
	in := call("POST", "/orders/alice", web)
	in.JWT = claims(t, "write")
	d, err := c.Evaluate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Allowed || d.Headers.Get("x-user") != "alice" || len(d.Headers) != 1 {
		t.Errorf("allowed %v, headers %v", d.Allowed, d.Headers)
	}
	if diff := cmp.Diff([]string{"x-tier"}, d.Unset); diff != "" {
		t.Error(diff)
	}
	in.Request.Segments = []string{"orders", "bob"}
	if d, err = c.Evaluate(t.Context(), in); err != nil || d.Allowed || d.Headers != nil {
		t.Errorf("allowed %v, headers %v, err %v", d.Allowed, d.Headers, err)
	}
}

// The client's own copy of a header that could have been set must not pass.
func TestHeadersThatAreNotSetAreUnsetHoweverTheyAreWritten(t *testing.T) {
	for _, rule := range []string{
		`headers["x-user"] := input.jwt.sub`,
		`headers := {"x-user": input.jwt.sub}`,
		`headers := {"x-user": sprintf("%s", [input.jwt.sub])} if input.request.method == "GET"`,
		`headers := {"x-a": "b"} if input.request.path == "/a" else := {"x-user": input.jwt.sub}`,
	} {
		d, err := compile(t, "package signet.authz\nallow contains \"all\"\n"+rule).Evaluate(t.Context(), call("GET", "/", web))
		if err != nil || !d.Allowed || !slices.Contains(d.Unset, "x-user") {
			t.Errorf("%s: unset %q, %v", rule, d.Unset, err)
		}
	}
}

func TestHeadersOfAnAllowMayNotSpeakForSignetOrEnvoy(t *testing.T) {
	in := call("GET", "/status", web)
	inEnvoys := func(name string) string {
		return fmt.Sprintf("package envoy.authz\nallow := {\"allowed\": true, \"headers\": {concat(\"\", [%q, \"\"]): \"x\"}}", name)
	}
	for _, rego := range []string{
		"package signet.authz\nallow contains \"all\"\nheaders[\"x-a\"] := concat(\"\", [\"a\\r\", \"\\nb: c\"])",
		"package signet.authz\nallow contains \"all\"\nheaders[\"x-a\"] := 5",
		inEnvoys("x-signet-id"), inEnvoys("x-forwarded-for"), inEnvoys("host"), inEnvoys(":path"),
	} {
		c := compile(t, rego)
		if d, err := c.Evaluate(t.Context(), in); err == nil {
			t.Errorf("%s: allowed %v with %v", rego, d.Allowed, d.Headers)
		}
	}
}

func TestHeadersThatFailOrContradictEachOtherAreAnError(t *testing.T) {
	for name, rego := range map[string]string{
		"a builtin that fails":      "package signet.authz\nheaders[\"x-a\"] := \"1\" if to_number(input.request.path) > 0",
		"two packages, two values":  "package signet.authz.order_store\nheaders[\"x-tier\"] := \"gold\"",
		"two values in one package": "package signet.authz\nheaders[\"x-a\"] := input.request.method\nheaders[\"x-a\"] := input.request.path",
	} {
		c := compile(t, policytest.Mesh, "package signet.authz\nheaders[\"x-tier\"] := \"silver\"", rego)
		if d, err := c.Evaluate(t.Context(), call("GET", "/status", web)); err == nil {
			t.Errorf("%s: allowed %v with %v", name, d.Allowed, d.Headers)
		}
	}
}

func TestABuiltinThatFailsIsAnErrorThatQuotesNothing(t *testing.T) {
	c := compile(t, policytest.Mesh, `package signet.authz
deny contains "too old" if to_number(input.request.headers.cookie[0]) > 5`)
	in := call("GET", "/status", web)
	in.Request.Headers["cookie"] = []string{"canary"}
	_, err := c.Evaluate(t.Context(), in)
	var ee *sandbox.Error
	if !errors.As(err, &ee) || ee.File != "policies/b.rego" || ee.Line != 2 || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func TestARunawayPolicyIsStoppedByCostAndByContext(t *testing.T) {
	c := compile(t, `package signet.authz
allow contains "slow" if {
	some x in numbers.range(1, 50000)
	some y in numbers.range(1, 50000)
	x + y == -1
}`)
	began := time.Now()
	_, err := c.Evaluate(t.Context(), call("GET", "/", web))
	if !errors.Is(err, sandbox.ErrLimit) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := c.Evaluate(ctx, call("GET", "/", web)); err == nil || d.Allowed {
		t.Errorf("with a cancelled context: %v %v", d, err)
	}
}

func TestFewSlowStepsAreStoppedByTheClock(t *testing.T) {
	c := compile(t, `package signet.authz
allow contains "slow" if {
	some x in numbers.range(1, 10000)
	count(split(input.request.headers.big[0], sprintf("%d", [x]))) == 0
}`)
	in := call("GET", "/", web)
	in.Request.Headers["big"] = []string{strings.Repeat("0", 1_000_000)}
	if _, err := c.Evaluate(t.Context(), in); !errors.Is(err, sandbox.ErrLimit) {
		t.Errorf("error %v", err)
	}
}

// On a busy host, or beside a collector that has much to do, an evaluation stands still for
// longer than it may take: it is not its doing.
func TestAnEvaluationThatHasItsThreadToItselfIsStoppedByWhatThatUsed(t *testing.T) {
	t.Parallel() // it stands still most of its time
	c := compile(t, `package signet.authz
allow contains "few steps" if {
	every x in numbers.range(1, 1000) { x > 0 }
}`)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stand := func(stands time.Duration) (took time.Duration, err error) {
		t.Helper()
		left := stands
		began := time.Now()
		_, err = c.Evaluate(sandbox.Yielding(t.Context(), func() {
			if left > 0 {
				time.Sleep(stands / 3)
				left -= stands / 3
			}
		}), call("GET", "/", web))
		if left == stands {
			t.Error("it never let others go on, so that nothing was tested")
		}
		return time.Since(began), err
	}
	const most = sandbox.MostTimes * sandbox.MaxTime
	if most >= proxy.AnswerWithin {
		t.Errorf("an evaluation may take %s, and proxies wait for %s", most, proxy.AnswerWithin)
	}
	if _, err := stand(most + time.Second); !errors.Is(err, sandbox.ErrLimit) {
		t.Errorf("stood still for longer than %s: %v", most, err)
	}
	for range 20 { // a host so busy that even the clock's bound is passed says nothing
		took, err := stand(time.Second)
		if err == nil {
			return
		}
		if took < most {
			t.Fatalf("stood still for 1s, and ended after %s: %v", took, err)
		}
	}
	t.Error("the clock's bound was passed by each of 20 evaluations that stood still for 1s")
}

func TestTheClockIsTheRequests(t *testing.T) {
	c := compile(t, `package signet.authz
allow contains "at noon" if {
	time.now_ns() == time.parse_rfc3339_ns(input.time)
	time.clock(time.now_ns())[0] == 12
}`)
	if d, err := c.Evaluate(t.Context(), call("GET", "/", web)); err != nil || !d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
}

func TestExemptionIsExactAndBeforeThePolicy(t *testing.T) {
	rev := policy.NewRevision("", "", policytest.Modules(`package signet.authz
deny contains "all" if true
headers["x-user"] := input.jwt.sub`), policy.Generated{Exemptions: []policy.Exemption{{
		Name: "generated: health check /health of shop/order-store", Destination: store.String(), Method: "GET", Path: "/health", Port: 8080, Sources: []string{web.String()},
	}, {
		Name: "generated: health check /grpc.health.v1.Health/Check of shop/order-store", Destination: store.String(), Method: "POST", Path: "/grpc.health.v1.Health/Check", Port: 8080, Sources: []string{web.String()},
	}, {
		Name: "generated: health check /alb of shop/order-store for ingress alb", Destination: store.String(), Method: "GET", Path: "/alb", Port: 8080, Ingress: []string{"alb"},
	}, { // of a server of the release before
		Name: "generated: health check /any of shop/order-store", Destination: store.String(), Method: "GET", Path: "/any", Sources: []string{web.String()},
	}}})
	c, err := policy.Compile(rev)
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, path string, source spiffeid.ID) policy.Input {
		in := call(method, path, source)
		in.Request.Port = 8080
		return in
	}
	otherPort, noPort, anyPort := call("GET", "/health", web), call("GET", "/health", web), call("GET", "/any", web)
	otherPort.Request.Port, noPort.Request.Port, anyPort.Request.Port = 8081, 0, 8081
	query := call("GET", "/health", web)
	query.Request.RawQuery = "a=b"
	upgrade := call("GET", "/health", web)
	upgrade.Request.Headers = map[string][]string{"upgrade": {"websocket"}}
	byGateway := call("GET", "/health", web)
	byGateway.Request.Headers = map[string][]string{proxy.HeaderByGateway: {"true"}}
	from := func(path, ingress string) policy.Input {
		in := call("GET", path, spiffeid.ID{})
		in.Source.Ingress = ingress
		return in
	}
	bearing := call("GET", "/alb", web)
	bearing.Source.Ingress = "alb"
	elsewhere := call("GET", "/health", web)
	elsewhere.Destination.ID = web
	for name, tc := range map[string]struct {
		in   policy.Input
		want bool
	}{
		"declared":            {call("GET", "/health", web), true},
		"another path":        {call("GET", "/health/", web), false},
		"below the path":      {call("GET", "/health/x", web), false},
		"a query":             {query, false},
		"an upgrade":          {upgrade, false},
		"another method":      {call("HEAD", "/health", web), false},
		"another source":      {call("GET", "/health", store), false},
		"no verified source":  {call("GET", "/health", spiffeid.ID{}), false},
		"another destination": {elsewhere, false},
		// A9-32: what listens there is another application, and declares no check.
		"another port":                 {otherPort, false},
		"a port that nobody knows":     {noPort, false},
		"declared without any port":    {anyPort, true},
		"another case of path":         {call("GET", "/Health", web), false},
		"of gRPC, declared":            {call("POST", "/grpc.health.v1.Health/Check", web), true},
		"of gRPC, by GET":              {call("GET", "/grpc.health.v1.Health/Check", web), false},
		"by POST, of HTTP":             {call("POST", "/health", web), false},
		"of a load balancer":           {from("/alb", "alb"), true},
		"of another one":               {from("/alb", "nlb"), false},
		"of a load balancer, a node's": {from("/health", "alb"), false},
		"from nowhere":                 {from("/alb", ""), false},
		"with an identity":             {bearing, false},
		// Whoever calls the gateway from outside of the mesh.
		"passed on by a gateway": {byGateway, false},
	} {
		d, err := c.Evaluate(t.Context(), tc.in)
		if err != nil || d.Allowed != tc.want {
			t.Errorf("%s: %v, error %v", name, d.Allowed, err)
		}
		if tc.want && (!strings.HasPrefix(d.Allow[0].Name, "generated: health check "+tc.in.Request.Path) || !slices.Equal(d.Unset, []string{"x-user"})) {
			t.Errorf("rule %v, unset %q", d.Allow, d.Unset)
		}
	}
}

func TestNoModulesDenyEverything(t *testing.T) {
	c := compile(t)
	if d, err := c.Evaluate(t.Context(), call("GET", "/", web)); err != nil || d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
}

const envoyRego = `package envoy.authz

import input.attributes.request.http as request

default allow := false

allow if {
	request.method == "GET"
	input.parsed_path[0] == "people"
	input.parsed_query.lang[0] == "en"
	input.attributes.source.principal == "spiffe://prod.example/shop/web"
	request.headers["x-a"] == "1,2"
}

allow := {"allowed": true, "headers": {"x-who": "bob"}} if {
	request.headers.authorization == "Basic Ym9iOg=="
}

allow if to_number(request.headers["x-n"]) > 5
`

func TestEnvoyAuthzRunsBesideAsUnderOPAEnvoy(t *testing.T) {
	c := compile(t, policytest.Mesh, envoyRego)
	people := call("GET", "/people/1", web)
	people.Request.RawTarget = "/people/1?lang=en"
	people.Request.Headers["x-a"] = []string{"1", "2"}
	people.Request.Headers["x-n"] = []string{"no number"} // undefined, not an error
	basic := call("POST", "/x", spiffeid.ID{})
	basic.Request.Headers["authorization"] = []string{"Basic Ym9iOg=="}
	admin := call("GET", "/admin", web)
	admin.Request.Headers["authorization"] = basic.Request.Headers["authorization"]
	for name, tc := range map[string]struct {
		in      policy.Input
		allowed bool
	}{
		"boolean": {people, true}, "object": {basic, true}, "denied by the mesh": {admin, false}, "default": {call("GET", "/x", web), false},
	} {
		d, err := c.Evaluate(t.Context(), tc.in)
		if err != nil || d.Allowed != tc.allowed {
			t.Errorf("%s: allowed %v, error %v", name, d.Allowed, err)
		}
		if name == "object" && d.Headers.Get("x-who") != "bob" {
			t.Errorf("headers %v", d.Headers)
		}
	}
}

func TestEnvoyAuthzRemovesTheHeadersThatItNamesOrFails(t *testing.T) {
	for list, want := range map[string]string{`["X-Role", "x-debug"]`: "x-role x-debug", `[]`: "", `"x-role"`: "error", `[5]`: "error", `["host"]`: "error"} {
		c := compile(t, "package envoy.authz\nallow := {\"allowed\": true, \"request_headers_to_remove\": "+list+"}")
		d, err := c.Evaluate(t.Context(), call("GET", "/", web))
		if got := strings.Join(d.Unset, " "); (err != nil) != (want == "error") || err == nil && (!d.Allowed || got != want) {
			t.Errorf("%s: %q, %v", list, got, err)
		}
	}
}

func BenchmarkEvaluateAllowed(b *testing.B) {
	c, in := compile(b, policytest.Mesh, policytest.Orders), call("GET", "/orders/1", web)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := c.Evaluate(b.Context(), in); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

func BenchmarkEvaluateDeniedAndTraced(b *testing.B) {
	c, in := compile(b, policytest.Mesh, policytest.Orders), call("PUT", "/orders/1", web)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := c.Evaluate(b.Context(), in); err != nil || d.Allowed || len(d.Failed) != 3 {
			b.Fatal(d, err)
		}
	}
}

func claims(t *testing.T, scope string) *policy.Claims {
	t.Helper()
	c, err := policy.NewClaims(map[string]any{"scope": scope, "sub": "alice", "groups": []any{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A remembered token's claims are in many requests at a time.
func TestClaimsAreReadByManyEvaluationsAtOnce(t *testing.T) {
	c := compile(t, `package signet.authz

allow contains "any claim" if { some name; input.jwt[name] == {"a", "b"}[_] }
allow contains "group" if { some g in input.jwt.groups; g == "b" }
allow contains "all" if count(input.jwt) == 3
`)
	in := call("GET", "/", web)
	in.JWT = claims(t, "read")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if d, err := c.Evaluate(t.Context(), in); err != nil || names(d.Allow) != "all|group" {
				t.Errorf("%q, %v", names(d.Allow), err)
			}
		})
	}
	wg.Wait()
}

func TestARuleMayAskForAListenersPort(t *testing.T) {
	c, err := policy.Compile(policy.NewRevision("", "", []policy.Module{{Path: "a.rego", Rego: "package signet.authz\nallow contains \"x\" if input.request.port == 8080\nallow contains \"none\" if {\n\tinput.request\n\tnot input.request.port\n}\n"}}, policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint32]string{8080: "x", 8081: "", 0: "none"} { // 0 is what an agent does not know
		in := call("GET", "/", web)
		in.Request.Port = port
		d, err := c.Evaluate(t.Context(), in)
		got := ""
		for _, r := range d.Allow {
			got += r.Name
		}
		if err != nil || got != want {
			t.Errorf("port %d: %q, want %q; %v", port, got, want, err)
		}
	}
}
