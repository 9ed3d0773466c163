// Package frozen is an Envoy as App Mesh left it: with the configuration that its last answer
// gave, which nobody changes any more, for tests.
package frozen

import (
	"maps"
	"slices"
)

// Node is a virtual node whose proxy it is.
type Node struct {
	// Name is the node's, in the mesh shop.
	Name string
	// At is the address at which it is called, port 8080; "" has no listener for others.
	At string
	// Inside is where its application listens, port 8080, its way out is, port 15001, and its
	// admin interface, port 9901.
	Inside string
	// Backends are the services that it calls, by the names that lead to them.
	Backends map[string]string
}

type object = map[string]any

func socket(address string, port int) object {
	return object{"socket_address": object{"address": address, "port_value": port}}
}

func cluster(name, kind, host string) object {
	return object{
		"name": name, "type": kind, "connect_timeout": "1s", "dns_refresh_rate": "1s", "dns_lookup_family": "V4_ONLY",
		"load_assignment": object{"cluster_name": name, "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": socket(host, 8080)}}}}}},
	}
}

func listener(name, address string, port int, routes string, hosts []any) object {
	return object{"name": name, "address": socket(address, port), "filter_chains": []any{object{"filters": []any{object{
		"name": "envoy.filters.network.http_connection_manager",
		"typed_config": object{
			"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix": name, "route_config": object{"name": routes, "virtual_hosts": hosts},
			"http_filters": []any{object{"name": "envoy.filters.http.router", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}},
		},
	}}}}}
}

func route(name string, to object) []any {
	to["timeout"] = "15s"
	return []any{object{"name": name, "match": object{"prefix": "/"}, "route": to}}
}

// Bootstrap is its configuration, as Envoy reads it from a file of JSON.
func (n Node) Bootstrap() map[string]any {
	own := "cds_ingress_shop_" + n.Name + "_http_8080"
	var clusters, listeners, backends []any
	if n.At != "" {
		clusters = append(clusters, cluster(own, "STATIC", n.Inside))
		listeners = append(listeners, listener("lds_ingress_0.0.0.0_15000", n.At, 8080, "rds_ingress_http_8080", []any{object{"name": "ingress", "domains": []any{"*"}, "routes": route("ingress", object{"cluster": own})}}))
	}
	for _, name := range slices.Sorted(maps.Keys(n.Backends)) {
		host := n.Backends[name]
		to := "cds_egress_shop_" + name + "_http_8080"
		clusters = append(clusters, cluster(to, "LOGICAL_DNS", host))
		backends = append(backends, object{"name": host, "domains": []any{host, host + ":8080"}, "routes": route(name, object{
			"cluster": to, "retry_policy": object{
				"retry_on": "unavailable,connect-failure,refused-stream,retriable-status-codes", "num_retries": 2, "retriable_status_codes": []any{503},
			},
		})})
	}
	listeners = append(listeners, listener("lds_egress_0.0.0.0_15001", n.Inside, 15001, "rds_egress_http_15001", backends))
	return object{
		"node":  object{"id": "arn:aws:appmesh:eu-west-1:123456789012:mesh/shop/virtualNode/" + n.Name, "cluster": n.Name},
		"admin": object{"address": socket(n.Inside, 9901)}, "static_resources": object{"listeners": listeners, "clusters": clusters},
	}
}
