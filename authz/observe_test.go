package authz_test

import (
	"slices"
	"testing"

	"signet.example/authz"
	"signet.example/policy"
)

// observing has orders observed by the policy of the fixture.
func observing(t *testing.T, rego string, change ...func(*authz.Options, *authz.Config)) *fixture {
	t.Helper()
	f := newFixtureWith(t, rego, change...)
	f.rev = policy.NewRevision("file:///repo", "c0ffee", []policy.Module{{Path: "orders.rego", Rego: rego}}, policy.Generated{Observed: []string{orders.String()}})
	compiled, err := policy.Compile(f.rev)
	if err != nil {
		t.Fatal(err)
	}
	f.conf.Policies = append(f.conf.Policies, compiled)
	f.Configure(f.conf)
	return f
}

func TestWhatThePolicyDeniesAtAnObservedDestinationPassesAndIsRecorded(t *testing.T) {
	const rego = `package signet.authz
allow contains "reads" if input.request.method == "GET"
deny contains "no admin" if input.request.segments[0] == "admin"
deny contains "divides" if 1 / to_number(input.request.query.n[0]) > 5
headers["x-user"] := "somebody" if input.request.method == "GET"`
	f := observing(t, rego, withJWT)
	for what, c := range map[string]struct {
		method, path, header string
		cause                authz.Cause
	}{
		"no rule":     {"POST", "/orders", "x-user: root", authz.CausePolicy},
		"deny":        {"GET", "/admin", "x-user: root", authz.CausePolicy},
		"an error":    {"GET", "/orders?n=0", "x-user: root", authz.CauseError},
		"allowed":     {"GET", "/orders", "x-user: root", authz.CauseNone},
		"a bad token": {"GET", "/orders", "authorization: Bearer abc", authz.CausePolicy},
	} {
		resp, err := f.Check(asked(t.Context()), f.question(c.method, c.path, web, c.header))
		r := f.last()
		if err != nil || resp.GetOkResponse() == nil || resp.GetStatus().GetCode() != 0 {
			t.Fatalf("%s: %v %v", what, resp, err)
		}
		if r.Allowed != (c.cause == authz.CauseNone) || r.Observed == r.Allowed || r.Cause != c.cause || r.PolicyRevision != f.rev.ID {
			t.Errorf("%s: %+v", what, r)
		}
		if !r.Allowed && (len(resp.GetOkResponse().GetHeaders()) > 0 || resp.GetOkResponse().GetHeadersToRemove()[0] != "x-user") {
			t.Errorf("%s: the caller's own copy of a header of the policy passes: %v", what, resp)
		}
	}
}

// Denied by the plugin, such a request never came to the application with a name that its caller
// chose.
func TestHeadersThatPackageEnvoyAuthzSetsDoNotPassWhereItIsObserved(t *testing.T) {
	const allow = `package envoy.authz
import input.attributes.request.http
default allow := {"allowed": false}
`
	for what, rego := range map[string]string{
		"in allow": allow + `allow := {"allowed": true, "headers": {"x-user": "somebody"}, "request_headers_to_remove": ["X-Role"]} if http.method == "GET"`,
		"by rules": allow + `headers["x-user"] := "somebody"
request_headers_to_remove := ["x-role"]
allow := {"allowed": true, "headers": headers, "request_headers_to_remove": request_headers_to_remove} if http.method == "GET"`,
		"by a rule for all": allow + `headers := {"x-user": "somebody"}
allow := {"allowed": true, "headers": headers, "request_headers_to_remove": ["x-role"]} if http.method == "GET"`,
	} {
		f := observing(t, rego)
		resp, err := f.Check(asked(t.Context()), f.question("POST", "/orders", web, "x-user: root", "x-role: root", "x-other: mine"))
		gone, r := resp.GetOkResponse().GetHeadersToRemove(), f.last()
		slices.Sort(gone)
		if err != nil || !r.Observed || !slices.Equal(slices.Compact(gone), []string{"x-role", "x-user"}) {
			t.Errorf("%s: %v, %+v", what, gone, r)
		}
	}
}

func TestWhatNobodyCouldDecideAndWhoIsBannedIsDeniedWhereItIsObserved(t *testing.T) {
	const rego = `package signet.authz
allow contains "all"`
	f := observing(t, rego, func(_ *authz.Options, c *authz.Config) { c.Bans = map[string]bool{web: true} })
	if _, r := f.ask(t, f.question("GET", "/", web)); r.Allowed || r.Observed {
		t.Errorf("a banned caller: %+v", r)
	}
	if _, r := f.ask(t, question("another", "GET", "/", "spiffe://prod.example/shop/other")); r.Allowed || r.Observed || r.Cause != authz.CauseUnavailable {
		t.Errorf("a revision that is not there: %+v", r)
	}
	resp, err := f.Check(t.Context(), f.question("GET", "/", web)) // of nobody who was attested
	if err != nil || resp.GetOkResponse() != nil {
		t.Errorf("%v %v", resp, err)
	}
}
