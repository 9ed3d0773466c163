package xds_test

import (
	"strings"
	"testing"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

func TestNoFileSpeaksForANameOfTheTrustDomain(t *testing.T) {
	const manifest = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
  backendDefaults: {clientPolicy: {tls: {validation: {trust: {file: {certificateChain: /keys/ca.pem}}NAMES}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  FOUND
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {awsName: orders.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: orders}}}}
`
	names := func(list string) string { return ", subjectAlternativeNames: {match: {exact: [" + list + "]}}" }
	const dns = "serviceDiscovery: {dns: {hostname: orders.example}}"
	for _, c := range []struct{ names, found, want string }{
		{"", dns, ""},
		{names(`"spiffe://other.example/shop/orders"`), "", ""},
		{names(`"spiffe://test.example.other/shop/orders"`), "", ""},
		{names(`orders.example, "spiffe://test.example/shop/orders"`), dns, "is of the mesh's own trust domain"},
		{names(`"SPIFFE://Test.Example/shop/orders"`), dns, "is of the mesh's own trust domain"},
		{names(`"spiffe://test.example"`), dns, "is of the mesh's own trust domain"},
		{"", "", "give validation.subjectAlternativeNames"},
	} {
		text := strings.NewReplacer("NAMES", c.names, "FOUND", c.found).Replace(manifest)
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain}
		_, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, found by %q: %v, want %q", c.names, c.found, err, c.want)
		}
	}
}
