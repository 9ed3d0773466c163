package check_test

import (
	"strings"
	"testing"

	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/test/policytest"
)

// tested are modules with a test, for which nothing is to be warned of.
func tested(files ...string) []policy.Module {
	return append(policytest.Modules(files...), policy.Module{Path: "policies/x_test.rego", Rego: "package signet.authz_test\n\ntest_one if true"})
}

func TestCheckRefusesByFileAndLineWhatTheInputNeverHas(t *testing.T) {
	for name, tc := range map[string]struct{ rego, want string }{
		"a body":                               {"package envoy.authz\n\ndefault allow := true\n\nallow := false if input.parsed_body.action == \"delete\"", `a.rego:5: input.parsed_body: the input never has this: no request's body`},
		"an address":                           {"package envoy.authz\n\ndefault allow := true\nallow := false if input.attributes.source.address.socketAddress.address == \"127.0.71.2\"", `a.rego:4: input.attributes.source.address: the input never has this: an address says nothing`},
		"an address of the destination":        {"package envoy.authz\nallow if input.attributes.destination.address.socketAddress.portValue == 80", `a.rego:2: input.attributes.destination.address`},
		"a truncated body":                     {"package envoy.authz\nallow if not input.truncated_body", `a.rego:2: input.truncated_body`},
		"a raw body":                           {"package envoy.authz\nallow if input.attributes.request.http.body == \"\"", `a.rego:2: input.attributes.request.http.body`},
		"a size":                               {"package envoy.authz\nallow if input.attributes.request.http.size < 5", `http.size`},
		"an id":                                {"package envoy.authz\nallow if input.attributes.request.http.id", `http.id`},
		"metadata":                             {"package envoy.authz\nallow if input.attributes.metadataContext.filterMetadata[\"envoy.filters.http.jwt_authn\"].x.sub", `a.rego:2: input.attributes.metadataContext: the input never has this: no other filter's metadata`},
		"extensions of the route":              {"package envoy.authz\nallow if input.attributes.contextExtensions.tier == \"gold\"", `a.rego:2: input.attributes.contextExtensions`},
		"by an import":                         {"package envoy.authz\nimport input.attributes.request.http as http_request\nallow if http_request.body", `a.rego:3: input.attributes.request.http.body`},
		"by an imported field":                 {"package envoy.authz\nimport input.parsed_body\nallow if parsed_body.x", `a.rego:3: input.parsed_body`},
		"by a rule of another name":            {"package envoy.authz\nhttp := input.attributes.request.http\nallow if http.body", `a.rego:3: input.attributes.request.http.body`},
		"by a local variable":                  {"package envoy.authz\nallow if {\n\tall := input\n\tr := all.attributes.request\n\tr.http.bdy\n}", `a.rego:5: input.attributes.request.http.bdy: the input never has this: there are headers`},
		"by object.get":                        {"package envoy.authz\nallow if object.get(input, \"parsed_body\", {}) == {}", `a.rego:2: input.parsed_body`},
		"by object.get and a path":             {"package envoy.authz\nallow if object.get(input, [\"attributes\", \"request\", \"http\", \"body\"], \"\") == \"\"", `a.rego:2: input.attributes.request.http.body`},
		"by object.get in a call":              {"package envoy.authz\nallow if count(object.get(input.attributes, \"metadataContext\", {})) == 0", `a.rego:2: input.attributes.metadataContext`},
		"in brackets":                          {"package envoy.authz\nallow if input[\"parsed_body\"].x", `a.rego:2: input.parsed_body`},
		"in a comprehension":                   {"package envoy.authz\nallow if count([1 | input.parsed_body]) == 0", `a.rego:2: input.parsed_body`},
		"in a head":                            {"package envoy.authz\nallow := {\"allowed\": true, \"headers\": {\"x-size\": input.attributes.request.http.size}}", `a.rego:2: input.attributes.request.http.size`},
		"in an else":                           {"package envoy.authz\nallow := true if input.parsed_path == [\"x\"]\nelse := true if input.parsed_body", `a.rego:3: input.parsed_body`},
		"in a function":                        {"package envoy.authz\nallow if f(1)\nf(x) if input.parsed_body == x", `a.rego:3: input.parsed_body`},
		"in every":                             {"package envoy.authz\nallow if every x in input.parsed_body { x }", `a.rego:2: input.parsed_body`},
		"in some":                              {"package envoy.authz\nallow if { some x in input.parsed_body; x }", `a.rego:2: input.parsed_body`},
		"under with":                           {"package envoy.authz\nallow if f with input.parsed_body as 1\nf if input.parsed_path[0] == \"x\"", `a.rego:2: input.parsed_body`},
		"behind not":                           {"package signet.authz\nallow contains \"x\" if not input.request.hdrs", `a.rego:2: input.request.hdrs`},
		"a slip in a field":                    {"package signet.authz\n\ndeny contains \"x\" if input.request.segmnts[0] == \"admin\"", `a.rego:3: input.request.segmnts: the input never has this: did you mean segments?`},
		"a slip in the source":                 {"package signet.authz\nallow contains \"x\" if input.source.spiffeid == \"spiffe://d/a\"", `did you mean spiffe_id?`},
		"a slip at the top":                    {"package signet.authz\nallow contains \"x\" if input.requst.method == \"GET\"", `a.rego:2: input.requst: the input never has this: did you mean request?`},
		"the plugin's view alone":              {"package signet.authz\nallow contains \"x\" if input.parsed_path == [\"x\"]", `a.rego:2: input.parsed_path: the input never has this: it is there beside package envoy.authz only`},
		"in a library":                         {"package signet.lib.x\nf(y) if input.request.bdy == y", `a.rego:2: input.request.bdy`},
		"a header in upper case":               {"package signet.authz\ndeny contains \"x\" if \"admin\" in input.request.headers[\"X-Role\"]", `a.rego:2: input.request.headers["X-Role"]: the input never has this: header names are in lower case: x-role`},
		"the plugin's header in upper case":    {"package envoy.authz\nallow if input.attributes.request.http.headers[\"X-Role\"] == \"a\"", `lower case: x-role`},
		"a pseudo-header":                      {"package signet.authz\nallow contains \"x\" if input.request.headers[\":path\"][0] == \"/\"", `request.method, path and host`},
		"a header as one text":                 {"package signet.authz\ndeny contains \"x\" if input.request.headers[\"x-role\"] == \"admin\"", `a.rego:2: input.request.headers["x-role"] is a list, which no text equals: write "admin" in input.request.headers["x-role"]`},
		"a header that is not one text":        {"package signet.authz\nallow contains \"x\" if input.request.headers[\"x-role\"] != \"admin\"", `is a list`},
		"a query as one text":                  {"package signet.authz\ndeny contains \"x\" if \"1\" == input.request.query.debug", `input.request.query.debug is a list`},
		"a list among texts":                   {"package signet.authz\nallow contains \"x\" if input.request.headers[\"x-role\"] in {\"a\", \"b\"}", `is none of these texts`},
		"segments as one text":                 {"package signet.authz\nallow contains \"x\" if input.request.segments == \"orders\"", `a.rego:2: input.request.segments is a list`},
		"a method as a list":                   {"package signet.authz\nallow contains \"x\" if input.request.method[_] == \"GET\"", `a.rego:2: input.request.method[_]: the input never has this: it is a text`},
		"the plugin's header as a list":        {"package envoy.authz\nallow if input.attributes.request.http.headers[\"x-role\"][_] == \"a\"", `it is a text`},
		"a method that is a number":            {"package signet.authz\nallow contains \"x\" if input.request.method == 5", `a.rego:2: match error`},
		"a port as a text":                     {"package signet.authz\nallow contains \"x\" if input.connection.port == \"6379\"", `a.rego:2: match error`},
		"a protocol of connections":            {"package signet.authz\nallow contains \"x\" if input.connection.protocol == \"TCP\"", `it is tcp`},
		"a request in a connection":            {"package signet.authz\nallow contains \"x\" if input.connection.path == \"/\"", `a.rego:2: input.connection.path: the input never has this`},
		"data that nobody defines":             {"package signet.authz\nallow contains \"x\" if data.roles[input.source.spiffe_id] == \"admin\"", `a.rego:2: data.roles: no rule defines it, and no data files are loaded`},
		"a rule that nobody defines":           {"package signet.authz\nimport data.signet.lib.x\nallow contains \"x\" if x.admn\n", `data.signet.lib.x.admn: no rule defines it`},
		"computed under envoy.authz":           {"package envoy.authz\nallow if { some k; input[k] == 1 }", `a.rego:2: input is read by a computed name`},
		"handed on whole under envoy.authz":    {"package envoy.authz\nallow if ok(input)\nok(r) if r.parsed_body.x", `a.rego:2: input is read by a computed name or handed on whole`},
		"walked through under envoy.authz":     {"package envoy.authz\nallow if { walk(input.attributes, [p, 1]); count(p) > 2 }", `a.rego:2: input.attributes is read`},
		"put into a list under envoy.authz":    {"package envoy.authz\nallow if { some r in [input]; r.parsed_body }", `a.rego:2: input is read`},
		"assigned twice under envoy.authz":     {"package envoy.authz\nallow if { count([1 | r := input; r.x]) == count([1 | r := [1]; r[0]]) }", `a.rego:2: `},
		"by a schema of its own":               {"# METADATA\n# scope: package\n# schemas:\n#   - input: {type: object, properties: {parsed_body: {}}}\npackage envoy.authz\nallow if input.parsed_body", `a.rego:6: input.parsed_body`},
		"a rule that is called nearly so":      {"package signet.authz\n\ndenny contains \"x\" if input.request.method == \"DELETE\"", `a.rego:3: rule denny: nobody reads it; did you mean deny?`},
		"a rule in another case":               {"package signet.authz\nAllow contains \"x\"", `rule Allow: nobody reads it; did you mean allow?`},
		"violations":                           {"package signet.authz\nviolation contains \"x\"", `did you mean deny?`},
		"a helper that nobody reads":           {"package signet.authz\nis_admin if input.jwt.admin\nallow contains \"x\"", `a.rego:2: rule is_admin: nobody reads it`},
		"a helper of a helper nobody reads":    {"package signet.authz\na if b\nb if input.jwt.admin\nallow contains \"x\"", `a.rego:3: rule b: nobody reads it`},
		"a function that nobody calls":         {"package signet.authz\nf(x) := x\nallow contains \"x\"", `rule f: nobody reads it`},
		"deny under envoy.authz":               {"package envoy.authz\nallow if input.parsed_path == [\"x\"]\ndeny contains \"x\" if input.parsed_path == [\"y\"]", `a.rego:3: rule deny: nobody reads it: of package envoy.authz only allow is asked`},
		"parts of a result under envoy.authz":  {"package envoy.authz\nallow if input.parsed_path == [\"x\"]\nresponse_headers_to_add[\"x-foo\"] := \"bar\"", `a.rego:3: rule response_headers_to_add: nobody reads it`},
		"a result put together":                {"package envoy.authz\nallow if input.parsed_path == [\"x\"]\nresult[\"allowed\"] := allow", `a.rego:3: rule result: nobody reads it`},
		"a status in the result":               {"package envoy.authz\n\nallow := {\n\t\"allowed\": true,\n\t\"http_status\": 200,\n}", `a.rego:5: rule allow: http_status: nobody reads it`},
		"headers of the answer in the result":  {"package envoy.authz\nallow := {\"allowed\": input.parsed_path == [\"x\"], \"response_headers_to_add\": {\"a\": \"b\"}}", `response_headers_to_add: nobody reads it`},
		"a result with computed names":         {"package envoy.authz\nallow := {k: true | some k in input.parsed_path}", `a.rego:2: rule allow: the object's names are computed`},
		"a result that is a text":              {"package envoy.authz\nallow := \"yes\"", `a.rego:2: rule allow: it can be a string`},
		"a result built by another rule":       {"package envoy.authz\nallow := r\nr[\"allowed\"] := true\nr[\"body\"] := \"x\"", `body: nobody reads it`},
		"a header with '_'":                    {"package signet.authz\ndeny contains \"x\" if \"admin\" in input.request.headers.x_role", `input.request.headers.x_role: the input never has this: proxies refuse headers with '_' in their name; did you mean ["x-role"]?`},
		"the plugin's header with '_'":         {"package envoy.authz\nallow if input.attributes.request.http.headers.x_role == \"a\"", `did you mean ["x-role"]?`},
		"a header of Signet's own":             {"package signet.authz\nallow contains \"x\" if input.request.headers[\"x-signet-spiffe-id\"]", `taken away before`},
		"a host with its port":                 {"package signet.authz\ndeny contains \"x\" if input.request.host == \"orders:8080\"", `a.rego:2: input.request.host is never "orders:8080": it is in lower case and without port`},
		"a host in upper case":                 {"package signet.authz\ndeny contains \"x\" if \"Orders\" == input.request.host", `input.request.host is never "Orders"`},
		"a path with its query":                {"package signet.authz\ndeny contains \"x\" if input.request.path == \"/a?b=c\"", `input.request.path is never "/a?b=c"`},
		"a path without a slash":               {"package signet.authz\ndeny contains \"x\" if input.request.path == \"admin\"", `it begins with a slash`},
		"a segment with a slash":               {"package signet.authz\ndeny contains \"x\" if input.request.segments[0] == \"/admin\"", `a.rego:2: input.request.segments[0] is never "/admin": a segment has no slash`},
		"a list where a text is wanted":        {"package envoy.authz\ndefault allow := true\nallow := false if startswith(input.request.headers[\"x-role\"], \"adm\")", `a.rego:3: input.request.headers["x-role"] is a list, and startswith wants a text`},
		"a text where a list is wanted":        {"package envoy.authz\nallow if array.concat(input.attributes.request.http.headers[\"x-role\"], []) == []", `is a text, and array.concat wants a list`},
		"deny in a library":                    {"package signet.lib.x\n\ndeny contains \"x\" if input.request.method == \"DELETE\"", `a.rego:3: rule deny: nobody reads it: of a library nothing is asked`},
		"what Compile refuses":                 {"package signet.authz\nallow if true", `want a set of names`},
		"a computed name and a slip elsewhere": {"package signet.authz\nallow contains \"x\" if {\n\tsome k\n\tinput.request[k] == \"GET\"\n\tinput.request.methd\n}", `a.rego:5: input.request.methd`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := check.Modules(tested(tc.rego))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestCheckWarnsOfComputedReads(t *testing.T) {
	for name, rego := range map[string]string{
		"a computed name":     "package signet.authz\n\nallow contains \"x\" if { some k; input.request[k] == \"GET\" }",
		"handed on whole":     "package signet.authz\n\nallow contains \"x\" if f(input.request)\nf(r) if r.segmnts",
		"walked through":      "package signet.authz\n\nallow contains \"x\" if { walk(input, [p, 1]); count(p) > 2 }",
		"iterated":            "package signet.authz\n\nallow contains \"x\" if { some k, v in input.source; k == v }",
		"by a computed path":  "package signet.authz\n\nallow contains \"x\" if object.get(input.request, [\"query\", input.time][0], \"\") == \"\"",
		"a library's":         "package signet.lib.x\n\nf(k) := input.request[k]",
		"a withheld header":   "package signet.authz\n\ndeny contains \"x\" if \"10.0.0.1\" in input.request.headers[\"x-real-ip\"]",
		"one by the library":  "package signet.authz\nimport data.signet.lib.http\ndeny contains \"x\" if \"DELETE\" in http.values(\"X-HTTP-Method-Override\")",
		"the plugin's":        "package envoy.authz\n\nallow if not input.attributes.request.http.headers[\"x-original-url\"]",
		"in a name of a rule": "package signet.authz\n\nallow contains \"x\" if m[\"GET\"]\nm[k] := input.request[k] if some k in [\"method\"]",
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := check.Modules(tested(rego))
			if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "policies/a.rego:3: ") && !strings.HasPrefix(warnings[0], "policies/a.rego:4: ") {
				t.Errorf("%q %v", warnings, err)
			}
		})
	}
}

func TestCheckTakesWithoutAWordWhatReadsTheInputAsItIs(t *testing.T) {
	for name, rego := range map[string]string{
		"every field": `package signet.authz

import data.signet.lib.http

allow contains "all" if {
	input.request.method in {"GET", "HEAD"}
	startswith(input.request.path, "/a/")
	input.request.segments == ["a", "b"]
	count(input.request.segments) == 2
	"x" in input.request.query.q
	input.request.query[_][0] == "y"
	input.request.host == "orders"
	input.request.host != "[::1]"
	input.request.path == "/a/b"
	input.request.segments[0] == "a"
	contains(input.request.headers["x-role"][0], "x")
	concat("/", input.request.segments) == "a/b"
	input.request.protocol == "HTTP/2"
	input.request.headers["x-role"][_] == "a"
	input.request.headers["x-role"] == ["a"]
	json.unmarshal(input.request.header_lines["x-json"][0]).a == 1
	"b" in http.values("X-Role")
	object.get(input.request.headers, "x-none", []) == []
	object.get(input, ["request", "headers", lower("X")], []) == []
	not input.jwt
	not input.source
	input.source.spiffe_id != input.destination.spiffe_id
	input.source.mesh == input.destination.mesh
	some name, values in input.request.headers
	startswith(name, "x-")
	count(values) > 0
	every segment in input.request.segments { segment != "admin" }
	time.parse_rfc3339_ns(input.time) > 0
	own(input.request.segments)
	print(input)
}

claims := input.jwt

own(s) if {
	s[1] == claims.sub
	claims[input.request.method].any.thing[_] == 5
}

request := input.request

deny contains "by other names" if {
	r := request
	r.segments[0] == "admin"
	src := input.source
	not src.spiffe_id
}

headers["x-user"] := claims.sub
`,
		"as opa-envoy-plugin's users write": `package envoy.authz

import input.attributes.request.http as http_request

default allow := false

allow := {"allowed": true, "headers": {"x-user": token.payload.sub}, "request_headers_to_remove": ["authorization"]} if {
	is_token_valid
	action_allowed
}

is_token_valid if {
	token.valid
	now := time.now_ns() / 1000000000
	now < token.payload.exp
}

action_allowed if {
	http_request.method == "GET"
	glob.match("/people/*", ["/"], http_request.path)
	input.parsed_path[0] == "people"
	input.parsed_query.lang == ["en"]
	input.attributes.source.principal == "spiffe://d/m/web"
	input.version.ext_authz == "v3"
}

token := {"valid": valid, "payload": payload} if {
	[_, encoded] := split(http_request.headers.authorization, " ")
	[valid, _, payload] := io.jwt.decode_verify(encoded, {"secret": "secret"})
}
`,
	} {
		t.Run(name, func(t *testing.T) {
			if warnings, err := check.Modules(tested(rego)); err != nil || len(warnings) > 0 {
				t.Errorf("%q %v", warnings, err)
			}
		})
	}
	for _, rego := range []string{policytest.Mesh, policytest.Orders} {
		if warnings, err := check.Modules(tested(rego)); err != nil || len(warnings) > 0 {
			t.Errorf("%q %v", warnings, err)
		}
	}
}
