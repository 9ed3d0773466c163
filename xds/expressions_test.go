package xds_test

import (
	"math/rand"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"signet.example/ads"
	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
	"signet.example/xds/predict"
)

// edges is a gateway before what a random mesh has.
const edges = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {listeners: [{portMapping: {port: 80, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: "arn:x"}}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: host}
spec: {httpRoute: {match: {hostname: {exact: s0.shop.internal}, prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s0}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: hosts}
spec: {httpRoute: {match: {hostname: {suffix: .shop.internal}, path: {exact: /a.b}}, action: {target: {virtualService: {virtualServiceRef: {name: s0}}}}}}
`

// renamed gives meshes other names, with dots in them, and nothing else.
var renamed = strings.NewReplacer("{name: shop}", "{name: shop}", "{name: host", "{name: host", "{name: n", "{name: a.n", "{name: s", "{name: b.s", "awsName: s", "awsName: b.s",
	".shop.internal", ".s.hop.a.b", "s0.shop.internal", "b.s0.s.hop.a.b", "hostname: n", "hostname: a.n")

// With other names a configuration has the same regular expressions: none is made of a
// name, so that a.b is not aXb (A20).
func TestNoExpressionIsMadeOfAName(t *testing.T) {
	expressions := func(text string, of proxy.Ref) []string {
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain, PolicyRevision: "r"}
		shape := xdstest.Shape
		shape.Suit(of)
		set, err := xds.Build(in, of, shape)
		if err != nil {
			t.Fatalf("%s: %v\n%s", of, err, text)
		}
		return invariants.Expressions(set)
	}
	seen := map[string]bool{}
	for seed := range 100 {
		text, nodes := xdstest.RandomMesh(rand.New(rand.NewSource(int64(seed))))
		other := renamed.Replace(text)
		node := nodes[seed%len(nodes)]
		one := expressions(text, proxy.Node("shop", node))
		if d := cmp.Diff(one, expressions(other, proxy.Node("shop", "a."+node))); d != "" {
			t.Fatalf("seed %d, %s: %s\n%s", seed, node, d, other)
		}
		edge := proxy.For("shop", "edge", true)
		two := expressions(text+"---"+edges, edge)
		if d := cmp.Diff(two, expressions(other+"---"+renamed.Replace(edges), edge)); d != "" {
			t.Fatalf("seed %d, gateway: %s\n%s", seed, d, other)
		}
		for _, e := range slices.Concat(one, two) {
			seen[e] = true
		}
	}
	for _, want := range []string{"/[0-9]+", "a.b"} { // what specs state as expressions is seen
		if !seen[want] {
			t.Errorf("%q is not among %d expressions", want, len(seen))
		}
	}
}

// What is no host is refused where it is applied, and a host is itself alone.
func TestAServiceIsFoundByItsOwnNameAlone(t *testing.T) {
	const text = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec: {listeners: [{portMapping: {port: 80, protocol: http}}], backends: [{virtualService: {virtualServiceRef: {name: web}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: web}
spec: {awsName: a.b, provider: {virtualNode: {virtualNodeRef: {name: web}}}}
`
	set, err := xds.Build(xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain}, proxy.Node("shop", "web"), xdstest.Shape)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Type(ads.RouteType) {
		if !strings.HasPrefix(r.Name, "rds_egress_") {
			continue
		}
		rc := decodeAs[*routev3.RouteConfiguration](t, r)
		for host, served := range map[string]bool{"a.b": true, "A.b:80": true, "aXb": false, "a..b": false, "a|b": false, "a.b.": false, "`a.b`": false, "*": false, "x.a.b": false, "a.bb": false} {
			o, err := predict.Of(rc, predict.Request{Method: "GET", Scheme: "http", Authority: host, Path: "/"})
			if err != nil {
				t.Fatal(err)
			}
			if (o.Route.GetRoute() != nil) != served {
				t.Errorf("%s: %s is served: %t", r.Name, host, !served)
			}
		}
	}
	for _, name := range []string{"a|b", "`a.b`", "*", "*.b", "a.*", "(a)", "a\\b"} {
		docs, err := mesh.Split("mesh.yaml", []byte(strings.Replace(text, "awsName: a.b", "awsName: '"+name+"'", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.Parse(docs[len(docs)-1]); err == nil {
			t.Errorf("a service may be called %s", name)
		}
	}
}
