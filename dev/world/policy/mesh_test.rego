package signet.authz_test

import data.signet.authz

get(segment) := {"method": "GET", "path": concat("", ["/", segment]), "segments": [segment]}

test_web_reads_orders if {
	"web may read orders" in authz.allow with input as {"source": {"spiffe_id": authz.web}, "request": get("orders")}
}

test_batch_reads_nothing if {
	count(authz.allow) == 0 with input as {"source": {"spiffe_id": "spiffe://demo.example/demo/batch"}, "request": get("orders")}
}

test_admin_is_denied if {
	"nobody reaches the admin pages" in authz.deny with input as {"source": {"spiffe_id": authz.web}, "request": get("admin")}
}
