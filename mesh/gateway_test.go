package mesh_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

func TestAGatewaysRoutesAreInTheirOrderWithTheirDefaults(t *testing.T) {
	const target = "target: {virtualService: {virtualServiceRef: {name: web}}}"
	route := func(name, match, rewrite, rest string) string {
		return "---\n" + object("GatewayRoute", name) + "spec: {" + rest + "httpRoute: {match: {" + match + "}, action: {" + target + rewrite + "}}}\n"
	}
	g := graphtest.Graph(t, "g.yaml", []byte(object("Mesh", "m")+"---\n"+object("VirtualService", "web")+"spec: {awsName: web.local}\n---\n"+
		object("VirtualGateway", "edge")+"spec: {listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 443, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}}], logging: {accessLog: {file: {path: /dev/stdout}}}}\n"+
		route("any", "hostname: {suffix: .EXAMPLE}", "", "")+
		route("all", "prefix: /", "", "")+
		route("long", "prefix: /a/b", ", rewrite: {prefix: {defaultPrefix: DISABLED}, hostname: {defaultTargetHostname: DISABLED}}", "")+
		route("first", "prefix: /a, port: 443", ", rewrite: {prefix: {value: /c/}}", "priority: 0, ")+
		route("host", "prefix: /, hostname: {exact: Shop.Example}", "", "")+
		route("path", "path: {exact: /a}", ", rewrite: {path: {exact: /b}}", "")))
	edge := g.Node(proxy.For("m", "edge", true))
	if edge == nil || g.Node(proxy.Node("m", "edge")) != nil || edge.Gateway == nil || edge.AccessLog != "/dev/stdout" {
		t.Fatalf("the gateway is %+v", edge)
	}
	var got []mesh.GatewayRoute
	for _, r := range edge.Gateway.Routes {
		r := *r
		r.Mesh, r.Gateway, r.Service, r.Priority = "", mesh.Name{}, mesh.Name{}, nil
		got = append(got, r)
	}
	want := []mesh.GatewayRoute{
		{Name: "first", Port: 443, Match: mesh.Match{Prefix: "/a"}, Rewrite: mesh.Rewrite{Prefix: "/c/"}},
		{Name: "host", Host: mesh.HostMatch{Exact: "shop.example"}, Match: mesh.Match{Prefix: "/"}, Rewrite: mesh.Rewrite{Prefix: "/"}},
		{Name: "any", Host: mesh.HostMatch{Suffix: ".example"}, Match: mesh.Match{Prefix: "/"}},
		{Name: "path", Match: mesh.Match{Path: "/a"}, Rewrite: mesh.Rewrite{Path: "/b"}},
		{Name: "long", Match: mesh.Match{Prefix: "/a/b"}, Rewrite: mesh.Rewrite{KeepHost: true}},
		{Name: "all", Match: mesh.Match{Prefix: "/"}, Rewrite: mesh.Rewrite{Prefix: "/"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(edge.Backends) != 1 || edge.Backends[0].Service != service("m", "web.local") {
		t.Errorf("it calls %v", edge.Backends)
	}
	if l := edge.Listeners; l[0].TLS.Mode != mesh.TLSDisabled || l[1].TLS.Mode != mesh.TLSStrict || !l[1].TLS.AnyClient {
		t.Errorf("its listeners take %+v and %+v", l[0].TLS, l[1].TLS)
	}
	for n := range g.Reaching(service("m", "web.local")) {
		if n != edge {
			t.Errorf("a change of the service reaches %v", n.Ref)
		}
	}
}

func TestARouteWithoutAGatewaysNameBelongsToThatOfItsNamespace(t *testing.T) {
	in := func(kind, name, namespace, spec string) string {
		return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec: " + spec + "\n"
	}
	const gateway = "{listeners: [{portMapping: {port: 80, protocol: http}}]}"
	g := graphtest.Graph(t, "g.yaml", []byte(object("Mesh", "m")+in("VirtualGateway", "edge", "a", gateway)+in("VirtualGateway", "edge", "b", gateway)+in("VirtualService", "web", "a", "{}")+
		in("GatewayRoute", "web", "a", "{httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: web}}}}}}")))
	for name, routes := range map[string]int{"edge_a": 1, "edge_b": 0} {
		if n := len(g.Node(proxy.For("m", name, true)).Gateway.Routes); n != routes {
			t.Errorf("%s has %d routes, want %d", name, n, routes)
		}
	}
}
