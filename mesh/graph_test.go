package mesh_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

func TestGraphResolvesReferencesAndARNs(t *testing.T) {
	g := graphtest.Joined(t, shop(t))
	web := g.Node(proxy.Node("shop", "web"))
	var backends []string
	for _, b := range web.Backends {
		backends = append(backends, b.Service.Name)
	}
	if want := []string{"orders.local", "stock.local"}; !slices.Equal(backends, want) {
		t.Errorf("backends of web: %v, want %v", backends, want)
	}
	if s := g.Service(service("shop", "Orders.LOCAL")); s == nil || g.Router(s.Router) == nil || g.Router(s.Router) != g.Router(router("shop", "orders")) {
		t.Errorf("orders.local does not lead to its router: %+v", s)
	}
	if s := g.Service(service("shop", "stock.local")); s == nil || g.Node(s.Node) == nil || g.Node(s.Node) != g.Node(proxy.Node("shop", "stock")) {
		t.Errorf("stock.local does not lead to its node: %+v", s)
	}
	if got, want := g.Meshes(), []string{"shop"}; !slices.Equal(got, want) {
		t.Errorf("meshes %v, want %v", got, want)
	}
	if len(g.Nodes("shop")) != 4 || len(g.Services("shop")) != 2 || len(g.Routers("shop")) != 1 || g.Mesh("shop") == nil {
		t.Error("the graph lacks something")
	}
	if g.Node(proxy.Node("other", "web")) != nil || g.Service(service("other", "x")) != nil || g.Router(router("other", "x")) != nil || g.Mesh("other") != nil {
		t.Error("a mesh that does not exist has something")
	}
}

func TestRoutesAreTriedInAppMeshOrder(t *testing.T) {
	var names []string
	for _, r := range graphtest.Joined(t, shop(t)).Router(router("shop", "orders")).Routes {
		names = append(names, r.Name)
	}
	if want := []string{"testers", "exact", "long", "all"}; !slices.Equal(names, want) {
		t.Errorf("order %v, want %v", names, want)
	}
}

func TestRouteCarriesWeightsPortsTimeoutsAndRetries(t *testing.T) {
	g := graphtest.Joined(t, shop(t))
	routes := g.Router(router("shop", "orders")).Routes
	all, testers := routes[3], routes[0]
	got := map[string][2]uint32{}
	for _, w := range all.Targets {
		got[w.Node.Name] = [2]uint32{w.Weight, w.Port}
	}
	if d := cmp.Diff(map[string][2]uint32{"orders-v1": {90, 9001}, "orders-v2": {10, 9002}}, got); d != "" {
		t.Error(d)
	}
	want := &mesh.Retry{MaxRetries: 2, PerTry: 5 * time.Second, HTTP: []string{"gateway-error"}, TCP: []string{"connection-error"}}
	if d := cmp.Diff(want, all.Retry); d != "" {
		t.Error(d)
	}
	if all.Timeout != (mesh.Timeout{PerRequest: 15 * time.Second, Idle: 300 * time.Second}) {
		t.Errorf("default timeouts are %+v", all.Timeout)
	}
	if testers.Timeout.PerRequest != 0 || testers.Retry != nil {
		t.Errorf("testers: %+v", testers)
	}
	headers := []mesh.HeaderMatch{{Name: "x-tester", Prefix: "t"}, {Name: "x-off", Present: true, Invert: true}}
	if d := cmp.Diff(headers, testers.Match.Headers); d != "" {
		t.Error(d)
	}
}

func TestListenerCarriesTLSProbeAndTimeouts(t *testing.T) {
	g := graphtest.Joined(t, shop(t))
	probe := &mesh.Probe{Protocol: "http", Path: "/healthz", Port: 9001, Interval: 5 * time.Second, Timeout: 2 * time.Second, Healthy: 2, Unhealthy: 3}
	if d := cmp.Diff(probe, g.Node(proxy.Node("shop", "orders-v1")).Listeners[0].Probe); d != "" {
		t.Error(d)
	}
	if got, want := g.Node(proxy.Node("shop", "web")).Listeners[0].Timeout, (mesh.Timeout{PerRequest: time.Minute}); got != want {
		t.Errorf("timeouts of web %+v, want %+v", got, want)
	}
	strict := &mesh.TLS{
		Mode: mesh.TLSStrict, Certificate: "spiffe://example.org/shop/stock", ClientTrust: "spiffe://example.org",
		Clients: []string{"spiffe://example.org/shop/web"},
	}
	if d := cmp.Diff(strict, g.Node(proxy.Node("shop", "stock")).Listeners[0].TLS); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&mesh.TLS{Mode: mesh.TLSStrict}, g.Node(proxy.Node("shop", "orders-v2")).Listeners[1].TLS); d != "" {
		t.Error(d)
	}
}

func TestBackendPolicyPrecedesTheDefault(t *testing.T) {
	g := graphtest.Joined(t, shop(t))
	web := g.Node(proxy.Node("shop", "web"))
	own := &mesh.ClientTLS{
		Certificate: "spiffe://example.org/shop/web", Trust: "spiffe://example.org",
		Servers: []string{"spiffe://example.org/shop/stock"}, Enforce: true,
	}
	if d := cmp.Diff(own, web.Backends[1].TLS); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&mesh.ClientTLS{Enforce: true}, web.Backends[0].TLS); d != "" {
		t.Error(d)
	}
}

func TestHealthChecksNameThoseWhoProbe(t *testing.T) {
	checks := graphtest.Joined(t, shop(t)).HealthChecks()
	if len(checks) != 1 {
		t.Fatalf("got %d health checks, want 1", len(checks))
	}
	c := checks[0]
	if c.Node != proxy.Node("shop", "orders-v1") || c.Method != "GET" || c.Path != "/healthz" || c.Port != 9001 {
		t.Errorf("got %+v", c)
	}
	if len(c.Callers) != 1 || c.Callers[0].Name != "web" {
		t.Errorf("callers %v, want web", c.Callers)
	}
}

// object is the head of an App Mesh object, to which a test adds its spec.
func object(kind, name string) string {
	return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + "}\n"
}

func TestDanglingReferenceNamesBothEndsAndItsLine(t *testing.T) {
	content := object("Mesh", "m") + "---\n" + object("VirtualNode", "web") +
		"spec:\n  backends:\n  - virtualService:\n      virtualServiceRef: {name: gone, namespace: far}\n"
	_, err := mesh.NewGraph(graphtest.Resources(t, "m.yaml", []byte(content)))
	want := "m.yaml:11:7: spec.backends[0].virtualService.virtualServiceRef: virtualNode web refers to virtualService gone in namespace far, which does not exist in mesh m"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// many is n services in a group, and a node n that has it.
func many(n int) string {
	var list, services strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "{name: s%d}, ", i)
		fmt.Fprintf(&services, "---\n%s", object("VirtualService", fmt.Sprintf("s%d", i)))
	}
	return object("BackendGroup", "g") + "spec: {virtualservices: [" + list.String() + "]}\n---\n" + object("VirtualNode", "n") + "spec: {backendGroups: [{name: g}]}\n" + services.String()
}

// A node calls what its groups list: each service once, whose own client policy holds
// before the defaults, and which is looked for in the group's namespace.
func TestTheServicesOfItsBackendGroupsAreANodesBackends(t *testing.T) {
	in := func(namespace, object string) string {
		return strings.Replace(object, "metadata: {name: ", "metadata: {namespace: "+namespace+", name: ", 1)
	}
	strict := "clientPolicy: {tls: {validation: {trust: {acm: {certificateAuthorityARNs: [x]}}}}}"
	group := func(services string) string {
		return in("far", object("BackendGroup", "g")) + "spec: {virtualservices: [" + services + "]}\n"
	}
	g := graphtest.Graph(t, "g.yaml", []byte(strings.Join([]string{
		object("Mesh", "m"), in("far", object("VirtualService", "a")), in("far", object("VirtualService", "b")), in("near", object("VirtualService", "c")),
		group("{name: a}, {name: c, namespace: near}, {name: b}"),
		in("near", object("BackendGroup", "other")) + "spec: {virtualservices: [{name: c}]}\n",
		in("near", object("VirtualNode", "n")) + "spec:\n  backendDefaults: {" + strict + "}\n  backends: [{virtualService: {virtualServiceRef: {name: b, namespace: far}, clientPolicy: {}}}]\n  backendGroups: [{name: g, namespace: far}, {name: other}]\n",
	}, "---\n")))
	names := func(g *mesh.Graph) []string {
		var list []string
		for _, b := range g.Node(proxy.Node("m", "n_near")).Backends {
			list = append(list, fmt.Sprintf("%s %t", b.Service.Name, b.TLS != nil))
		}
		return list
	}
	if d := cmp.Diff([]string{"a.far true", "b.far false", "c.near true"}, names(g)); d != "" {
		t.Error(d)
	}
	changed, ok := g.With(graphtest.Resources(t, "g.yaml", []byte(strings.Replace(group("{name: a}"), "spec: {", "spec: {meshRef: {name: m}, ", 1))), nil)
	if !ok {
		t.Fatal("a service less is refused")
	}
	if d := cmp.Diff([]string{"a.far true", "b.far false", "c.near true"}, names(changed)); d != "" { // by the other group
		t.Error(d)
	}
	if _, ok := changed.With(nil, []mesh.Name{mesh.NameOf(mesh.KindBackendGroup, "m", "g_far")}); ok {
		t.Error("a group that a node names is gone")
	}
	if _, ok := changed.With(nil, []mesh.Name{service("m", "a.far")}); ok {
		t.Error("a service that a group lists is gone")
	}
	var reached []string
	for n := range changed.Reaching(mesh.NameOf(mesh.KindBackendGroup, "m", "g_far")) {
		reached = append(reached, n.Name)
	}
	if d := cmp.Diff([]string{"n_near"}, reached); d != "" {
		t.Error(d)
	}
}

func TestOptionsMakeNobodyACaller(t *testing.T) {
	options := strings.Replace(object("VirtualNodeOptions", "n"), mesh.GroupVersion, mesh.SignetGroupVersion, 1) + "spec: {listeners: [{port: 80, circuitBreaker: {maxRetries: 1}}]}\n"
	g := graphtest.Graph(t, "g.yaml", []byte(strings.Join([]string{
		object("Mesh", "m"), options,
		object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 80, protocol: http}, healthCheck: {protocol: http, path: /up, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}}]}\n",
		object("VirtualNode", "caller") + "spec: {backends: [{virtualService: {virtualServiceRef: {name: s}}}]}\n",
		object("VirtualService", "s") + "spec: {provider: {virtualNode: {virtualNodeRef: {name: n}}}}\n",
	}, "---\n")))
	if g.Node(proxy.Node("m", "n")).Listeners[0].Breaker.Retries != 1 {
		t.Error("the node has none of its options")
	}
	if checks := g.HealthChecks(); len(checks) != 1 || len(checks[0].Callers) != 1 || checks[0].Callers[0].Name != "caller" {
		t.Errorf("checked by %+v", checks)
	}
	for from, want := range map[mesh.Name][]string{
		mesh.NameOf(mesh.KindVirtualNodeOptions, "m", "n"): {"caller", "n"}, mesh.NameOf(mesh.KindVirtualNode, "m", "n"): {"caller", "n"},
	} {
		var reached []string
		for n := range g.Reaching(from) {
			reached = append(reached, n.Name)
		}
		if slices.Sort(reached); !slices.Equal(reached, want) {
			t.Errorf("%s reaches %v", from.Kind, reached)
		}
	}
}

func TestGraphRefuses(t *testing.T) {
	m := object("Mesh", "m") + "---\n"
	node := object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}]}\n---\n"
	two := object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}, {portMapping: {port: 2, protocol: http}}]}\n---\n"
	route := func(target string) string {
		return object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}], routes: [{name: x, httpRoute: {match: {prefix: /}, action: {weightedTargets: [" + target + "]}}}]}\n"
	}
	gateway := func(name string) string {
		return object("VirtualGateway", name) + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}]}\n---\n"
	}
	edge := func(ref, service string) string {
		return object("GatewayRoute", "e") + "spec: {" + ref + "httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: " + service + "}}}}}}\n---\n"
	}
	for what, row := range map[string]struct{ content, want string }{
		"no mesh":    {object("VirtualNode", "n"), "virtualNode n belongs to no mesh"},
		"two meshes": {m + object("Mesh", "m2") + "---\n" + object("VirtualNode", "n"), "spec.meshRef: virtualNode n must say its mesh, by spec.meshRef or by --mesh of an import; there are: m, m2"},
		"two that select": {
			m + object("Mesh", "m2") + "spec: {namespaceSelector: {matchLabels: {mesh: m2}}}\n---\n" + object("VirtualNode", "n"),
			"spec.meshRef: virtualNode n must say its mesh, by spec.meshRef or by --mesh of an import; there are: m, m2; the namespaceSelector of mesh m2 is not read: there are no namespaces here to select",
		},
		"unknown mesh":        {m + object("VirtualNode", "n") + "spec: {meshRef: {name: x}}", `spec.meshRef.name: virtualNode n refers to mesh "x"`},
		"same object":         {m + node + node, "virtualNode n exists already (g.yaml:5)"},
		"same mesh":           {m + object("Mesh", "m") + "spec: {awsName: k}\n---\n" + object("VirtualNode", "n") + "spec: {meshRef: {name: k}}", "mesh m has two App Mesh names, \"k\" and \"m\" (g.yaml:1)"},
		"same name":           {m + node + object("VirtualNode", "k") + "spec: {awsName: n}", `has the App Mesh name "n" of virtualNode n`},
		"same host":           {m + object("VirtualService", "s") + "---\n" + object("VirtualService", "k") + "spec: {awsName: S}", `has the App Mesh name "S" of virtualService s`},
		"no listener":         {m + object("VirtualNode", "n") + "---\n" + route("{virtualNodeRef: {name: n}, weight: 1}"), "virtualNode n has no listener"},
		"wrong port":          {m + node + route("{virtualNodeRef: {name: n}, weight: 1, port: 7}"), "weightedTargets[0].port: virtualNode n has no listener on port 7"},
		"missing port":        {m + two + route("{virtualNodeRef: {name: n}, weight: 1}"), "weightedTargets[0].port: is required: virtualNode n has 2 listeners"},
		"missing target":      {m + route("{virtualNodeRef: {name: n}, weight: 1}"), "virtualRouter r refers to virtualNode n, which does not exist"},
		"foreign ARN":         {m + node + route("{virtualNodeARN: 'arn:aws:appmesh:r:1:mesh/x/virtualNode/n', weight: 1}"), "which is of mesh x"},
		"dangling ARN":        {m + node + route("{virtualNodeARN: 'arn:aws:appmesh:r:1:mesh/m/virtualNode/x', weight: 1}"), "virtualNode/x, which does not exist"},
		"silent provider":     {m + object("VirtualNode", "n") + "---\n" + object("VirtualService", "s") + "spec: {provider: {virtualNode: {virtualNodeRef: {name: n}}}}", "which has no listener"},
		"backend twice":       {m + object("VirtualService", "s") + "---\n" + object("VirtualNode", "n") + "spec: {backends: [{virtualService: {virtualServiceRef: {name: s}}}, {virtualService: {virtualServiceRef: {name: s}}}]}", "is the backend of spec.backends[0] already"},
		"missing group":       {m + object("VirtualNode", "n") + "spec: {backendGroups: [{name: g, namespace: far}]}", "spec.backendGroups[0]: virtualNode n refers to backendGroup g in namespace far, which does not exist in mesh m"},
		"missing of group":    {m + object("BackendGroup", "g") + "spec: {virtualservices: [{name: gone}]}", "spec.virtualservices[0]: backendGroup g refers to virtualService gone, which does not exist in mesh m"},
		"group of a name":     {m + object("BackendGroup", "g_far") + "---\n" + strings.Replace(object("BackendGroup", "g"), "g}", "g, namespace: far}", 1), `metadata.name: backendGroup g in namespace far has the App Mesh name "g_far" of backendGroup g_far`},
		"options of nothing":  {m + strings.Replace(object("VirtualNodeOptions", "n"), mesh.GroupVersion, mesh.SignetGroupVersion, 1) + "spec: {listeners: [{port: 1, circuitBreaker: {maxRetries: 1}}]}", "metadata.name: virtualNodeOptions n refers to virtualNode n, which does not exist in mesh m"},
		"options of a port":   {m + node + strings.Replace(object("VirtualNodeOptions", "n"), mesh.GroupVersion, mesh.SignetGroupVersion, 1) + "spec: {listeners: [{port: 7, circuitBreaker: {maxRetries: 1}}]}", "spec.listeners[0].port: virtualNode n has no listener on port 7"},
		"every service":       {m + object("VirtualNode", "n") + "spec: {backendGroups: [{name: '*'}]}", "every service of a namespace"},
		"too many":            {m + many(51), "virtualNode n has 51 backends with those of its groups: at most 50"},
		"what is lacking":     {m + object("VirtualNode", "n") + "spec: {backendGroups: [{name: '*'}]}", "every service of a namespace"},
		"bytes to http":       {m + node + strings.NewReplacer("protocol: http", "protocol: tcp", "httpRoute: {match: {prefix: /}, ", "tcpRoute: {").Replace(route("{virtualNodeRef: {name: n}, weight: 1}")), "weightedTargets[0]: virtualNode n does not take the bytes of a tcpRoute on port "},
		"requests to tcp":     {m + strings.Replace(node, "protocol: http", "protocol: tcp", 1) + route("{virtualNodeRef: {name: n}, weight: 1}"), "weightedTargets[0]: virtualNode n does not take requests on port "},
		"a gateway's twin":    {m + node + object("VirtualGateway", "n"), `virtualGateway n has the App Mesh name "n", and so has virtualNode n (g.yaml:5): both would have the identity /m/n`},
		"a twin by awsName":   {m + object("VirtualGateway", "g") + "spec: {awsName: n}\n---\n" + node, `metadata.name: virtualGateway g has the App Mesh name "n", and so has virtualNode n`},
		"no gateway":          {m + edge("", "s"), "spec.virtualGatewayRef: gatewayRoute e refers to a virtual gateway, which does not exist: mesh m has none"},
		"several gateways":    {m + gateway("g") + gateway("h") + edge("", "s"), "spec.virtualGatewayRef: gatewayRoute e must name its gateway: mesh m has several, virtualGateway g and virtualGateway h, and the selectors of gateways are not read"},
		"an unknown gateway":  {m + gateway("g") + edge("virtualGatewayRef: {name: h}, ", "s"), "spec.virtualGatewayRef: gatewayRoute e refers to virtualGateway h, which does not exist in mesh m"},
		"a gateway's service": {m + gateway("g") + edge("", "s"), "spec.httpRoute.action.target.virtualService.virtualServiceRef: gatewayRoute e refers to virtualService s, which does not exist"},
		"a gateway's port":    {m + gateway("g") + object("VirtualService", "s") + "---\n" + strings.Replace(edge("", "s"), "prefix: /", "prefix: /, port: 7", 1), "spec.httpRoute.match.port: virtualGateway g has no listener on port 7"},
		"a gateway's pool":    {m + object("VirtualGateway", "g") + "spec: {listeners: [{portMapping: {port: 1, protocol: grpc}, connectionPool: {grpc: {maxRequests: 1}}}, {portMapping: {port: 2, protocol: http}}]}", "spec.listeners[0].connectionPool"},
	} {
		_, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(row.content)))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v\nwant …%s…", what, err, row.want)
		}
	}
}

// Who decides by it need not read messages, in which names are that others chose.
func TestWhatAReferenceLacksIsKnownByAType(t *testing.T) {
	m := object("Mesh", "m") + "---\n"
	route := func(target string) string {
		return m + object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}], routes: [{name: x, httpRoute: {match: {prefix: /}, action: {weightedTargets: [" + target + "]}}}]}\n"
	}
	for what, row := range map[string]struct {
		content string
		want    mesh.MissingError
	}{
		"a reference":       {route("{virtualNodeRef: {name: n}, weight: 1}"), mesh.MissingError{Kind: mesh.KindVirtualNode, ObjectName: "n"}},
		"an ARN":            {route("{virtualNodeARN: 'arn:aws:appmesh:r:1:mesh/m/virtualNode/x', weight: 1}"), mesh.MissingError{Kind: mesh.KindVirtualNode, AppMeshName: "x"}},
		"any gateway":       {m + object("GatewayRoute", "e") + "spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}", mesh.MissingError{Kind: mesh.KindVirtualGateway}},
		"a mesh":            {m + object("VirtualNode", "n") + "spec: {meshRef: {name: x}}", mesh.MissingError{Kind: mesh.KindMesh, ObjectName: "x"}},
		"any mesh":          {object("VirtualNode", "n"), mesh.MissingError{Kind: mesh.KindMesh}},
		"a group's service": {m + object("BackendGroup", "g") + "spec: {virtualservices: [{name: gone}]}", mesh.MissingError{Kind: mesh.KindVirtualService, ObjectName: "gone"}},
	} {
		_, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(row.content)))
		if got, ok := errors.AsType[*mesh.MissingError](err); !ok || *got != row.want {
			t.Errorf("%s: %+v of %v", what, got, err)
		}
	}
	_, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(m+object("Mesh", "m2")+"---\n"+object("VirtualNode", "n"))))
	if got, ok := errors.AsType[*mesh.MissingError](err); err == nil || ok {
		t.Errorf("an object that has to say its mesh: %+v", got)
	}
}

func TestADanglingReferenceAsksForWhatIsKnownByAnotherName(t *testing.T) {
	of := func(kind, name, namespace, spec string) string {
		return "---\n" + strings.Replace(object(kind, name), "name: "+name, "name: "+name+", namespace: "+namespace, 1) + "spec: " + spec + "\n"
	}
	m := object("Mesh", "m") + of("VirtualService", "colorapp", "ns1", "{awsName: colorapp.ns1.pvt.aws.local}") + of("VirtualNode", "front", "ns1", "{}")
	backend := func(ref string) string {
		return m + "---\n" + object("VirtualNode", "own") + "spec: {backends: [{virtualService: " + ref + "}]}\n"
	}
	for what, row := range map[string]struct{ content, want string }{
		"by the App Mesh name":       {backend("{virtualServiceRef: {name: Colorapp.ns1.pvt.aws.local}}"), "in mesh m; a reference has metadata.name and its namespace: did you mean {name: colorapp, namespace: ns1}?"},
		"without the namespace":      {backend("{virtualServiceRef: {name: colorapp}}"), "did you mean {name: colorapp, namespace: ns1}?"},
		"an ARN of Kubernetes' name": {backend("{virtualServiceARN: 'arn:aws:appmesh:r:1:mesh/m/virtualService/colorapp'}"), "; an ARN has the App Mesh name: did you mean colorapp.ns1.pvt.aws.local?"},
		"of two namespaces": {
			m + of("VirtualNode", "front", "ns2", "{}") + "---\n" + object("VirtualService", "s") + "spec: {provider: {virtualNode: {virtualNodeRef: {name: front}}}}",
			"did you mean {name: front, namespace: ns1} or {name: front, namespace: ns2}?",
		},
	} {
		_, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(row.content)))
		if err == nil || !strings.HasSuffix(err.Error(), row.want) {
			t.Errorf("%s: got %v\nwant …%s", what, err, row.want)
		}
	}
	if _, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(backend("{virtualServiceRef: {name: other}}")))); err == nil || !strings.HasSuffix(err.Error(), "in mesh m") {
		t.Errorf("nothing is like it: %v", err)
	}
}

func TestGraphReportsWhatIsLackingBesideWhatDangles(t *testing.T) {
	content := object("Mesh", "m") + "---\n" + object("VirtualNode", "n") +
		"spec: {listeners: [{portMapping: {port: 1, protocol: tcp}, healthCheck: {protocol: http, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}}], backends: [{virtualService: {virtualServiceRef: {name: s}}}]}"
	_, err := mesh.NewGraph(graphtest.Resources(t, "g.yaml", []byte(content)))
	if errs := manifest.AsErrors(err); len(errs) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestMeshIsChosenByRefThenByStoreThenAlone(t *testing.T) {
	content := object("Mesh", "a") + "---\n" + object("Mesh", "b") + "spec: {awsName: bee}\n---\n" +
		object("VirtualNode", "x") + "spec: {meshRef: {name: b, uid: 1-2}}\n---\n" + object("VirtualNode", "y")
	rs := graphtest.Resources(t, "m.yaml", []byte(content))
	rs[3].Mesh = "a" // as a store keeps it
	if err := mesh.AssignMeshes(rs); err != nil {
		t.Fatal(err)
	}
	if rs[2].Mesh != "bee" || rs[3].Mesh != "a" {
		t.Errorf("x is of %q, want bee; y is of %q, want a", rs[2].Mesh, rs[3].Mesh)
	}
}

func TestSameNamesInTwoMeshesAreApart(t *testing.T) {
	content := object("Mesh", "a") + "---\n" + object("Mesh", "b") + "---\n" +
		object("VirtualNode", "x") + "spec: {meshRef: {name: a}}\n---\n" + object("VirtualNode", "x") + "spec: {meshRef: {name: b}}\n"
	g := graphtest.Graph(t, "m.yaml", []byte(content))
	if g.Node(proxy.Node("a", "x")) == nil || g.Node(proxy.Node("a", "x")) == g.Node(proxy.Node("b", "x")) {
		t.Error("the nodes are not apart")
	}
}
