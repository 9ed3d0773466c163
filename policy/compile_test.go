package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"signet.example/policy"
	"signet.example/test/policytest"
)

func TestCompileRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ rego, want string }{
		"a package nobody asks":      {"package app.authz\nallow contains \"x\"", "want signet.authz"},
		"a node of a node of a mesh": {"package signet.authz.a.b.c\nallow contains \"x\"", "want signet.authz"},
		"a node of a mesh as a rule": {"package signet.authz.shop.allow\nhelper := 1", `it would be the rule allow of package signet.authz.shop`},
		"a mesh named as a rule":     {"package signet.authz.deny.orders\nhelper := 1", `it would be the rule deny of package signet.authz`},
		"a name with a slash":        {"package signet.authz[\"shop/orders\"]\nallow contains \"x\"", `not the name of a mesh or virtual node`},
		"allow as a boolean":         {"package signet.authz\nallow if true", `want a set of names`},
		"allow as an object":         {"package signet.authz\nallow[\"x\"] := true", `want a set of names`},
		"deny as a boolean":          {"package signet.authz\ndefault deny := false", `want a set of names`},
		"a name from the request":    {"package signet.authz\nallow contains n if n := input.request.path", `constant string`},
		"a number for a name":        {"package signet.authz\nallow contains 5", `constant string`},
		"an empty name":              {"package signet.authz\nallow contains \"\"", `printable`},
		"a line feed in a name":      {"package signet.authz\nallow contains \"a\\nb\"", `printable`},
		"Signet's own prefix":        {"package signet.authz\nallow contains \"generated: x\"", `prefix`},
		"a decision in a wrong spot": {"package signet.authz\norders.allow contains \"x\"", `own package`},
		"setting host":               {"package signet.authz\nheaders[\"host\"] := \"x\"", `where or how`},
		"setting x-signet-*":         {"package signet.authz\nheaders := {\"x-signet-id\": \"x\"}", `own`},
		"setting a pseudo-header":    {"package signet.authz\nheaders := {\"ok\": \"x\"} if false else := {\":path\": \"x\"}", `pseudo`},
		"setting x-forwarded-*":      {"package signet.authz\nheaders[\"x-forwarded-for\"] := \"x\"", `own`},
		"a header from the request":  {"package signet.authz\nheaders[k] := \"x\" if some k in input.request.query.h", `constant string`},
		"a computed header":          {"package signet.authz\nheaders := {k: v | some k, v in input.jwt}", `object`},
		"a header in an else branch": {"package signet.authz\nheaders := {\"a\": \"x\"} if false else := {k: \"x\"} if k := input.jwt.k", `constant string`},
		"headers as a function":      {"package signet.authz\nheaders(x) := {\"a\": x}", `object`},
		"a service named as a rule":  {"package signet.authz.deny\nhelper := 1", `it would be the rule deny of package signet.authz`},
		"nested comprehensions":      {"package signet.authz\nx := " + strings.Repeat("[1 | ", 9) + "true" + strings.Repeat("]", 9), `nested`},
		"headers as a set":           {"package signet.authz\nheaders contains \"x\"", `object`},
		"http.send":                  {"package signet.authz\nallow contains \"x\" if http.send({\"method\": \"get\", \"url\": \"http://h\"})", `builtin http.send is not available to policies`},
		"http.send by with":          {"package signet.authz\nallow contains \"x\" if f with f as http.send\nf := 1", `http`},
		"net.lookup_ip_addr":         {"package signet.authz\nallow contains \"x\" if net.lookup_ip_addr(\"h\")", `is not available to policies: `},
		"opa.runtime":                {"package signet.authz\nallow contains \"x\" if opa.runtime().env", `is not available to policies: `},
		"rand.intn":                  {"package signet.authz\nallow contains \"x\" if rand.intn(\"a\", 2) == 1", `is not available to policies: `},
		"uuid":                       {"package signet.authz\nallow contains \"x\" if uuid.rfc4122(\"a\")", `is not available to policies: `},
		"signing":                    {"package signet.authz\nallow contains \"x\" if io.jwt.encode_sign({}, {}, {})", `is not available to policies: `},
		"schemas by reference":       {"package signet.authz\nallow contains \"x\" if json.match_schema({}, {\"$ref\": \"file:///etc/passwd\"})", `is not available to policies: `},
		"Rego v0":                    {"package signet.authz\nallow[\"x\"] { true }", `if`},
		"an unused variable":         {"package signet.authz\nallow contains \"x\" if { y := 1 }", `assigned`},
		"an unused import":           {"package signet.authz\nimport data.signet.lib.http\nallow contains \"x\"", `unused`},
		"no rule allow for Envoy":    {"package envoy.authz\nalow := true", `no rule allow`},
		"a syntax error":             {"package signet.authz\nallow contains", `policies/a.rego:2`},
		"a library of Signet's name": {"package signet.lib.http\nvalues(x) := x", `library of Signet`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Compile(policy.NewRevision("", "", policytest.Modules(tc.rego), policy.Generated{}))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestCompileRefusesARevisionThatIsNotItsID(t *testing.T) {
	r := policy.NewRevision("file:///r", "c0ffee", policytest.Modules(policytest.Mesh), policy.Generated{})
	r.Modules[0].Rego += "\nallow contains \"all\""
	if _, err := policy.Compile(r); err == nil || !strings.Contains(err.Error(), "its content is that of") {
		t.Errorf("error %v", err)
	}
}

func TestCompileRefusesAnExemptionThatIsNoHealthCheck(t *testing.T) {
	good := policy.Exemption{Name: "generated: x", Destination: store.String(), Method: "GET", Path: "/health", Sources: []string{web.String()}}
	for _, spoil := range []func(*policy.Exemption){
		func(e *policy.Exemption) { e.Method = "POST" },
		func(e *policy.Exemption) { e.Name = "" },
		func(e *policy.Exemption) { e.Path = "" },
		func(e *policy.Exemption) { e.Path = "health" },
	} {
		e := good
		spoil(&e)
		if _, err := policy.Compile(policy.NewRevision("", "", nil, policy.Generated{Exemptions: []policy.Exemption{e}})); err == nil {
			t.Errorf("taken: %+v", e)
		}
	}
	good.Method, good.Path = "POST", "/grpc.health.v1.Health/Check"
	if _, err := policy.Compile(policy.NewRevision("", "", nil, policy.Generated{Exemptions: []policy.Exemption{good}})); err != nil {
		t.Error(err)
	}
}

func TestNoPolicySetsAHeaderThatNamesTheCallerOrFramesTheRequest(t *testing.T) {
	for _, name := range []string{
		"x-forwarded-client-cert", "x-envoy-internal", "x-signet-denied", "host", "connection", "keep-alive", "proxy-connection",
		"transfer-encoding", "upgrade", "te", "trailer", "content-length", "expect", "X-Upper", "a b", "",
	} {
		if _, err := policy.Compile(policy.NewRevision("", "", policytest.Modules(fmt.Sprintf("package signet.authz\nheaders[%q] := \"x\"", name)), policy.Generated{})); err == nil {
			t.Errorf("%q may be set", name)
		}
	}
}

func TestRevisionIDIsThatOfTheContentInAnyOrder(t *testing.T) {
	mods := policytest.Modules(policytest.Mesh, policytest.Orders)
	exempt := []policy.Exemption{
		{Name: "a", Destination: "spiffe://d/a", Method: "GET", Path: "/h", Sources: []string{"x", "y"}},
		{Name: "b", Destination: "spiffe://d/b", Method: "GET", Path: "/h", Sources: []string{"x"}},
	}
	one := policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: exempt})
	slices.Reverse(mods)
	slices.Reverse(exempt)
	exempt[1].Sources = []string{"y", "x"}
	mods = append(mods, policy.Module{Path: "a_test.rego", Rego: "package signet.authz_test"})
	if two := policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: exempt}); one.ID != two.ID {
		t.Errorf("%s and %s", one.ID, two.ID)
	}
	ids := map[string]bool{one.ID: true}
	for _, r := range []policy.Revision{
		policy.NewRevision("u", "d", mods, policy.Generated{Exemptions: exempt}),
		policy.NewRevision("v", "c", mods, policy.Generated{Exemptions: exempt}),
		policy.NewRevision("uc", "", mods, policy.Generated{Exemptions: exempt}),
		policy.NewRevision("u", "c", mods[:1], policy.Generated{Exemptions: exempt}),
		policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: exempt[:1]}),
		policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: []policy.Exemption{exempt[0], {Name: "a", Destination: "spiffe://d/a", Method: "GET", Path: "/h", Sources: []string{"x", "z"}}}}),
		policy.NewRevision("u", "c", []policy.Module{{Path: "a", Rego: "b"}}, policy.Generated{}),
		policy.NewRevision("u", "c", []policy.Module{{Path: "", Rego: "ab"}}, policy.Generated{}),
		policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: exempt, Observed: []string{"x"}}),
		policy.NewRevision("u", "c", mods, policy.Generated{Exemptions: exempt, Contested: []string{"x"}}),
	} {
		if ids[r.ID] {
			t.Errorf("id %s twice", r.ID)
		}
		ids[r.ID] = true
	}
	if len(one.Modules) != 2 || exempt[1].Sources[0] != "y" {
		t.Error("tests are in the revision, or the caller's exemptions were sorted")
	}
}

func TestHelpersMayStandInLibrariesAndBesideRules(t *testing.T) {
	c := compile(t, `package signet.authz.order_store
import data.signet.lib.roles
level["web"] := 3
allow contains "by level" if level[roles.name(input.source.path)] > 2`, `package signet.lib.roles
name(p) := trim_prefix(p, "/shop/")`)
	if d, err := c.Evaluate(t.Context(), call("GET", "/", web)); err != nil || !d.Allowed {
		t.Errorf("%+v %v", d, err)
	}
}
