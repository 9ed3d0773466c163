package check_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"signet.example/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A policy of the mesh and one of a node, as in the tests of package policy.
const meshRego = `package signet.authz

import data.signet.lib.http

deny contains "nobody reaches admin" if input.request.segments[0] == "admin"

deny contains "no admin role" if "admin" in http.values("X-Role")

allow contains "every service may read status" if {
	input.request.method == "GET"
	input.request.path == "/status"
	input.source.spiffe_id
}
`

const ordersRego = `package signet.authz.order_store

# web reads
allow contains "web may read orders" if {
	input.request.method == "GET"
	input.request.segments[0] == "orders"
	input.source.spiffe_id == "spiffe://prod.example/shop/web"
}

allow contains "users may write their own" if {
	input.request.method == "POST"
	some scope in split(input.jwt.scope, " ")
	scope == "write"
	is_own
}

is_own if input.request.segments[1] == input.jwt.sub

headers["x-user"] := input.jwt.sub

headers["x-tier"] := "gold" if input.jwt.tier == "gold"
`

func modules(files ...string) []policy.Module {
	var out []policy.Module
	for i, f := range files {
		out = append(out, policy.Module{Path: fmt.Sprintf("policies/%c.rego", 'a'+i), Rego: f})
	}
	return out
}
