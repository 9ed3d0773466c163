// Package policytest has policies for the tests of package policy and of those that read
// and check a tree: it owns their text, and nothing of what is expected of them.
package policytest

import (
	"fmt"

	"signet.example/policy"
)

// Mesh is a policy of a whole mesh.
const Mesh = `package signet.authz

import data.signet.lib.http

deny contains "nobody reaches admin" if input.request.segments[0] == "admin"

deny contains "no admin role" if "admin" in http.values("X-Role")

allow contains "every service may read status" if {
	input.request.method == "GET"
	input.request.path == "/status"
	input.source.spiffe_id
}
`

// Orders is one of the virtual node order-store.
const Orders = `package signet.authz.order_store

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

// Modules are files of a repository: policies/a.rego, policies/b.rego and so on.
func Modules(files ...string) []policy.Module {
	var out []policy.Module
	for i, f := range files {
		out = append(out, policy.Module{Path: fmt.Sprintf("policies/%c.rego", 'a'+i), Rego: f})
	}
	return out
}
