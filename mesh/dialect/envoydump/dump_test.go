package envoydump_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/envoydump"
)

const (
	bootstrap = `{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "NODE"}}}`
	clusters  = `{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "version_info": "1", "dynamic_active_clusters": [CLUSTERS]}`
	routes    = `{"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [{"version_info": "1", "route_config": {"name": "rds_egress_http_15001", "virtual_hosts": [HOSTS]}}]}`
	// As App Mesh made them.
	colour = `{"cluster": {"name": "cds_egress_shop_colour_1_http_8080", "type": "TYPE", "connect_timeout": "1s",
		"load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "HOST.", "port_value": 8080}}}}]}]},
		"health_checks": [{"timeout": "2s", "interval": "5s", "unhealthy_threshold": 2, "healthy_threshold": 3, "alt_port": 8080, "http_health_check": {"host": "a:8080", "path": "/ping"}}]}}`
	local = `{"cluster": {"name": "cds_ingress_shop_front_http_9080", "type": "STATIC"}}`
	host  = `{"name": "colour.internal", "domains": ["colour.internal", "colour.internal:8080"], "routes": [
		{"match": {"prefix": "/", "headers": [{"name": "x-v", "exact_match": "2"}]}, "route": {"weighted_clusters": {"total_weight": 5, "clusters": [
			{"name": "cds_egress_shop_colour_1_http_8080", "weight": 5}]}, "timeout": "15s",
			"retry_policy": {"retry_on": "reset,refused-stream,retriable-status-codes", "num_retries": 1, "per_try_timeout": "5s", "retriable_status_codes": [502, 503, 504, 409]}}}]}`
)

func dumpOf(node, cluster, hosts string) string {
	text := `{"configs": [` + clusters + "," + routes + "," + bootstrap + "]}" // in any order
	for _, r := range []struct{ is, by string }{{"NODE", node}, {"CLUSTERS", cluster}, {"HOSTS", hosts}} {
		text = strings.ReplaceAll(text, r.is, r.by)
	}
	return text
}

func clusterOf(kind, host string) string {
	return strings.NewReplacer("TYPE", kind, "HOST", host).Replace(colour)
}

// read is what all dumps have together.
func read(o dialect.Options, dumps ...string) *dialect.Found {
	drafts := dialect.NewDrafts(o)
	all := envoydump.New(drafts)
	for i, text := range dumps {
		all.Read(dialect.File{Name: fmt.Sprintf("%d.json", i), Content: []byte(text)})
	}
	all.Add()
	return drafts.Found()
}

func textOf(f *dialect.Found) (manifests, findings string) {
	for _, r := range f.Resources {
		manifests += string(r.Encode()) + "---\n"
	}
	for _, one := range f.Findings {
		findings += one.What + ": " + one.String() + "\n"
	}
	return manifests, findings
}

func TestADumpOfAppMeshsProxyTellsWhatItCallsAndWhatItCannotTellIsNamed(t *testing.T) {
	found := read(dialect.Options{}, dumpOf("arn:aws:appmesh:eu-west-1:123456789012:mesh/shop/virtualNode/front", clusterOf("LOGICAL_DNS", "colour.example")+","+local, host))
	manifests, findings := textOf(found)
	if len(found.Incomplete)+len(found.Refused) > 0 {
		t.Errorf("%v %v\n%s", found.Incomplete, found.Refused, findings)
	}
	for _, want := range []string{
		"name: front\n", "port: 9080\n", "virtualServiceRef:\n", "name: colour_1\n", "hostname: colour.example\n", "responseType: LOADBALANCER\n",
		"path: /ping\n", "intervalMillis: 5000\n", "healthyThreshold: 3\n", "awsName: colour.internal\n", "exact: \"2\"\n", "weight: 5\n",
		"maxRetries: 1\n", "- stream-error\n", "- gateway-error\n", "- client-error\n", "value: 5000\n",
	} {
		if !strings.Contains(manifests, want) {
			t.Errorf("%q is not in\n%s", want, manifests)
		}
	}
	for _, want := range []string{
		"VirtualNode colour_1: ", "are in a dump of its own proxy; what `aws appmesh describe-virtual-node` answered while App Mesh was there has it, or add it to the manifest: it is taken to have none",
		"the name of a router is not in a dump", "Mesh shop: ", "connection pools, listener time-outs and access logs",
	} {
		if !strings.Contains(findings, want) {
			t.Errorf("%q is not in\n%s", want, findings)
		}
	}
}

func TestDumpsOfOneMeshAreJoinedAndWhereTheyDoNotAgreeNothingIsTaken(t *testing.T) {
	front := dumpOf("mesh/shop/virtualNode/front", clusterOf("EDS", "")+","+local, host)
	own := dumpOf("mesh/shop/virtualNode/colour_1", `{"cluster": {"name": "cds_ingress_shop_colour_1_http_8080"}}`, "")
	_, findings := textOf(read(dialect.Options{}, front, own))
	if strings.Contains(findings, "are in a dump of its own proxy") || !strings.Contains(findings, "Cloud Map") {
		t.Error(findings)
	}
	for what, other := range map[string]string{
		"DNS name":         dumpOf("mesh/shop/virtualNode/other", clusterOf("LOGICAL_DNS", "another.example"), ""),
		"healthCheck":      dumpOf("mesh/shop/virtualNode/other", strings.Replace(clusterOf("LOGICAL_DNS", "colour.example"), "/ping", "/pong", 1), ""),
		"what it leads to": dumpOf("mesh/shop/virtualNode/other", clusterOf("LOGICAL_DNS", "colour.example"), strings.Replace(host, `"2"`, `"3"`, 1)),
	} {
		found := read(dialect.Options{}, dumpOf("mesh/shop/virtualNode/front", clusterOf("LOGICAL_DNS", "colour.example"), host), other)
		if _, findings := textOf(found); len(found.Incomplete) == 0 || !strings.Contains(findings, what) || !strings.Contains(findings, "give dumps of one moment") {
			t.Errorf("%s: %v\n%s", what, found.Incomplete, findings)
		}
	}
}

// An Envoy whose control plane has gone, or whose hosts do not answer, has a cluster twice, or
// only as one that it does not use yet.
func TestOfAClusterThatEnvoyHasTwiceTheNewerIsRead(t *testing.T) {
	newer := clusterOf("LOGICAL_DNS", "colour.example")
	warming := func(text string) string {
		return strings.Replace(text, `"dynamic_active_clusters"`, `"dynamic_warming_clusters": [`+newer+`], "dynamic_active_clusters"`, 1)
	}
	older := strings.Replace(newer, "/ping", "/pong", 1)
	for what, text := range map[string]string{
		"twice":       warming(dumpOf("mesh/shop/virtualNode/front", older+","+local, host)),
		"warming yet": warming(dumpOf("mesh/shop/virtualNode/front", local, host)),
	} {
		found := read(dialect.Options{}, text)
		if manifests, findings := textOf(found); len(found.Incomplete) > 0 || !strings.Contains(manifests, "path: /ping\n") {
			t.Errorf("%s: %v\n%s%s", what, found.Incomplete, manifests, findings)
		}
	}
}

// Signet up to 0.7 made two routes of one.
func TestWhatSignetMakesOfARouteIsReadAsThatRoute(t *testing.T) {
	const route = `{"name": "all", "match": {"prefix": "/", "headers": [HEADERS]}, "route": {"cluster": "cds_egress_shop_colour_1_http_8080", "retry_policy": POLICY}}`
	const zone = `{"name": "zone", "string_match": {"exact": "a"}}`
	const declared, safe = `{"retry_on": "reset,refused-stream", "num_retries": 3}`, `{"retry_on": "refused-stream", "num_retries": 3}`
	one := func(headers, policy string) string {
		return strings.NewReplacer("HEADERS", headers, "POLICY", policy).Replace(route)
	}
	of := func(routes ...string) string {
		hosts := `{"name": "colour.internal", "domains": ["colour.internal", "colour.internal:8080"], "routes": [` + strings.Join(routes, ",") + `]}`
		manifests, _ := textOf(read(dialect.Options{}, dumpOf("mesh/shop/virtualNode/front", clusterOf("LOGICAL_DNS", "colour.example")+","+local, hosts)))
		return manifests
	}
	two := of(one(zone+`, {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"}}}`, declared), one(zone, safe))
	if n := strings.Count(two, "weightedTargets"); n != 1 || !strings.Contains(two, "maxRetries: 3\n") || strings.Contains(two, ":method") {
		t.Errorf("%d routes:\n%s", n, two)
	}
	if own := of(one(zone+`, {"name": ":method", "string_match": {"exact": "GET"}}`, declared), one(zone, safe)); !strings.Contains(own, "method: GET\n") {
		t.Errorf("somebody's own two routes of one name became one:\n%s", own)
	}
	now := of(one(zone, `{"retry_on": "connect-failure,refused-stream,retriable-headers", "num_retries": 2, "retriable_status_codes": [502, 503, 504]}`))
	if !strings.Contains(now, "- gateway-error\n") || strings.Contains(now, "stream-error") || strings.Contains(now, "connection-error") {
		t.Errorf("another policy:\n%s", now)
	}
	if never := of(one(zone, `{"num_retries": 1, "retriable_status_codes": [409]}`)); !strings.Contains(never, "- client-error\n") {
		t.Errorf("another policy:\n%s", never)
	}
}

func TestADumpThatCannotBeReadIsRefusedByWhatToDo(t *testing.T) {
	for text, want := range map[string]string{
		dumpOf("mesh/shop/virtualGateway/edge", local, host): "describe-virtual-gateway",
		dumpOf("", local, host):                              "say with --mesh which mesh it is of",
		`{"configs": [{"bootstrap": 7}]}`:                    "is no config dump of Envoy",
		`{"configs": {}}`:                                    "is no config dump of Envoy",
		`{"configs": [` + "\n":                               "is no config dump of Envoy",
	} {
		if _, findings := textOf(read(dialect.Options{}, text)); !strings.Contains(findings, want) {
			t.Errorf("%s: %s", text[:min(len(text), 60)], findings)
		}
	}
	// A gateway's dump is a good one, and the API that described the gateway is shut.
	_, findings := textOf(read(dialect.Options{}, dumpOf("mesh/shop/virtualGateway/edge", local, host)))
	if strings.Contains(findings, "no config dump") || !strings.Contains(findings, "is of virtual gateway edge of mesh shop") || !strings.Contains(findings, "write the VirtualGateway and its GatewayRoutes as manifests") {
		t.Errorf("a gateway's dump: %s", findings)
	}
	if found := read(dialect.Options{Mesh: "shop"}, dumpOf("", local, "")); len(found.Resources) != 2 {
		t.Errorf("%v", found.Resources) // the mesh, and the node whose listener it is
	}
	unknown := strings.Replace(host, "cds_egress_shop_colour_1_http_8080", "cds_egress_shop_amazonaws", 1)
	found := read(dialect.Options{}, dumpOf("mesh/shop/virtualNode/front", local, unknown))
	if _, findings := textOf(found); len(found.Incomplete) != 1 || !strings.Contains(findings, "is no virtual node's of mesh shop") {
		t.Errorf("%v\n%s", found.Incomplete, findings)
	}
}

func FuzzReadKeepsToWhatItSaysOfEveryText(f *testing.F) {
	f.Add(dumpOf("mesh/shop/virtualNode/front", clusterOf("LOGICAL_DNS", "colour.example")+","+local, host))
	f.Add(`{"configs": [{"dynamic_route_configs": [{"route_config": {"name": "rds_egress_", "virtual_hosts": [{"name": "a:1"}, {"name": "a:2", "routes": [{"direct_response": {}}]}]}}]}]}`)
	f.Add(`{"configs": [{"dynamic_active_clusters": [{"cluster": {"name": "cds_egress_m_n_http_99999"}}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		found := read(dialect.Options{Mesh: "m"}, text)
		for _, o := range found.Resources {
			if len(o.Encode()) == 0 {
				t.Errorf("%s is complete and has no manifest", o)
			}
		}
	})
}
