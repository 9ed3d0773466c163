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

// BenchmarkNodeOfMany is what a mesh of 100 services, of which each node calls ten, costs for each
// of its nodes, as a change tries them: once in any shape.
func BenchmarkNodeOfMany(b *testing.B) {
	const services = 100
	in := xds.Input{Graph: graphtest.Graph(b, "mesh.yaml", []byte(callingTen(services))), TrustDomain: xdstest.TrustDomain}
	for name, managed := range map[string]bool{"strangers": false, "managed": true} {
		in.Managed = func(proxy.Ref) bool { return managed }
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			in, n := in, 0
			for b.Loop() {
				if n%services == 0 {
					in.Memory = &xds.Memory{}
				}
				if _, err := xds.Build(in, proxy.Node("shop", fmt.Sprint("n", n%services)), xdstest.Shape); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}

// callingTen is a mesh of n services, each of a node of its own that calls ten.
func callingTen(n int) string {
	var b strings.Builder
	b.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n")
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: s%d}\nspec: {provider: {virtualNode: {virtualNodeRef: {name: n%d}}}}\n", i, i)
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n%d}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n", i)
		fmt.Fprintf(&b, "  serviceDiscovery: {dns: {hostname: n%d.shop.internal}}\n  backends:\n", i)
		for j := range 10 {
			fmt.Fprintf(&b, "  - virtualService: {virtualServiceRef: {name: s%d}}\n", (i+j*7+1)%n)
		}
	}
	return b.String()
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
