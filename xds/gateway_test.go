package xds_test

import (
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func TestAGatewayCallsItsServicesAsItsClientPolicySays(t *testing.T) {
	const text = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  backendDefaults:
    clientPolicy:
      tls:
        POLICYcertificate: {sds: {secretName: "spiffe://test.example/shop/shown"}}
        validation:
          trust: {sds: {secretName: "spiffe://partner.example"}}
          subjectAlternativeNames: {match: {exact: ["spiffe://partner.example/named"]}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: all}
spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: web}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: web}
spec: {provider: {virtualNode: {virtualNodeRef: {name: web}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec: {listeners: [{portMapping: {port: 80, protocol: http}}], serviceDiscovery: {dns: {hostname: web.partner.example}}}
`
	for policy, encrypted := range map[string]bool{"": true, "enforce: false\n        ": false, "ports: [443]\n        ": false} {
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(strings.Replace(text, "POLICY", policy, 1))), TrustDomain: xdstest.TrustDomain}
		edge, shape := proxy.For("shop", "edge", true), xdstest.Shape
		shape.Suit(edge)
		set, err := xds.Build(in, edge, shape)
		if err != nil {
			t.Fatal(err)
		}
		socket := decodeAs[*clusterv3.Cluster](t, set.Get(ads.ClusterType, "cds_egress_shop_web_http_80")).GetTransportSocket()
		if (socket != nil) != encrypted {
			t.Errorf("%q: by TLS: %t", policy, socket != nil)
		}
		for _, want := range []string{"spiffe://test.example/shop/shown", "spiffe://partner.example", "spiffe://partner.example/named"} {
			if encrypted && !strings.Contains(string(socket.GetTypedConfig().GetValue()), want) {
				t.Errorf("%q: the cluster's TLS has no %s", policy, want)
			}
		}
	}
}

// The routes of a gateway and those of its services are each few, and their product is not.
func TestAGatewayOfTooManyRoutesIsRefused(t *testing.T) {
	build := func(gatewayRoutes, routes int) error {
		var b strings.Builder
		b.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: edge}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n")
		b.WriteString("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n")
		b.WriteString("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: web}\nspec: {provider: {virtualRouter: {virtualRouterRef: {name: web}}}}\n")
		b.WriteString("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: web}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes:\n")
		for i := range routes {
			fmt.Fprintf(&b, "    - {name: r%d, httpRoute: {match: {prefix: /r%d}, action: {weightedTargets: [{virtualNodeRef: {name: web}, weight: 1}]}}}\n", i, i)
		}
		for i := range gatewayRoutes {
			fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: g%d}\nspec: {httpRoute: {match: {prefix: /g%d}, action: {target: {virtualService: {virtualServiceRef: {name: web}}}}}}\n", i, i)
		}
		edge, shape := proxy.For("shop", "edge", true), xdstest.Shape
		shape.Suit(edge)
		_, err := xds.Build(xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(b.String())), TrustDomain: xdstest.TrustDomain}, edge, shape)
		return err
	}
	if err := build(10, 50); err != nil { // what App Mesh had room for
		t.Error(err)
	}
	if err := build(100, 50); err == nil || !strings.Contains(err.Error(), "fewer gateway routes") {
		t.Errorf("100 by 50: %v", err)
	}
}
