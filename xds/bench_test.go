package xds_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// BenchmarkOneWeight is what one changed weight costs to translate again for a caller of 50
// services of 4 routes each, App Mesh's most.
func BenchmarkOneWeight(b *testing.B) {
	in := xds.Input{Graph: graphtest.Graph(b, "mesh.yaml", []byte(manyRoutes(50, 4))), TrustDomain: xdstest.TrustDomain, Managed: func(proxy.Ref) bool { return true }}
	for name, memory := range map[string]*xds.Memory{"first": nil, "again": {}} {
		in.Memory = memory
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyRoutes is a mesh whose front calls n services, each a router with so many routes to a node
// of its own.
func manyRoutes(n, each int) string {
	const node = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n"
	var b, backends strings.Builder
	b.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n")
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		fmt.Fprintf(&b, "---\n"+node, name)
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: %s}\nspec: {provider: {virtualRouter: {virtualRouterRef: {name: %s}}}}\n", name, name)
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n  routes:\n", name)
		for r := range each {
			fmt.Fprintf(&b, "  - name: r%d\n    httpRoute: {match: {prefix: /r%d}, action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: 1}]}}\n", r, r, name)
		}
		fmt.Fprintf(&backends, "  - virtualService: {virtualServiceRef: {name: %s}}\n", name)
	}
	fmt.Fprintf(&b, "---\n"+node+"  backends:\n%s", "front", backends.String())
	return b.String()
}
