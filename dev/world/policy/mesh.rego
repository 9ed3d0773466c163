# Who may call what in the demo's mesh. Nothing is allowed that no rule allows.
package signet.authz

web := "spiffe://demo.example/demo/web"

allow contains "web may read orders" if {
	input.source.spiffe_id == web
	input.request.method == "GET"
	input.request.segments[0] == "orders"
}

allow contains "a customer may read their own account" if {
	input.source.spiffe_id == web
	input.request.segments[0] == "account"
	"orders:read" in split(input.jwt.scope, " ")
}

deny contains "nobody reaches the admin pages" if {
	input.request.segments[0] == "admin"
}
