package policies_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh/graphtest"
	"signet.example/policy"
	"signet.example/server/policies"
)

const checkedMesh = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: stranger}
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: 9001, protocol: http}
      healthCheck: {protocol: http, path: /healthz, healthyThreshold: 2, unhealthyThreshold: 3, timeoutMillis: 2000, intervalMillis: 5000}
    - portMapping: {port: 9002, protocol: grpc}
      healthCheck: {protocol: grpc, healthyThreshold: 2, unhealthyThreshold: 3, timeoutMillis: 2000, intervalMillis: 5000}
    - portMapping: {port: 9003, protocol: http2}
      healthCheck: {protocol: tcp, healthyThreshold: 2, unhealthyThreshold: 3, timeoutMillis: 2000, intervalMillis: 5000}
    - portMapping: {port: 9004, protocol: http}
      healthCheck: {protocol: http, path: /healthz, healthyThreshold: 2, unhealthyThreshold: 3, timeoutMillis: 2000, intervalMillis: 5000}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec:
  awsName: orders.local
  provider: {virtualNode: {virtualNodeRef: {name: orders}}}
---
apiVersion: signet.example/v1alpha1
kind: VirtualNodeOptions
metadata: {name: orders}
spec:
  listeners:
    - {port: 9001, ingress: [{name: alb, ranges: [10.0.1.0/24]}, {name: nlb, ranges: [10.0.2.0/24], healthCheckPath: /healthz}, {name: old, ranges: [10.0.3.0/24], healthCheckPath: /old}]}
    - {port: 9003, ingress: [{name: alb, ranges: [10.0.1.0/24]}]}
`

func TestADeclaredHealthCheckExemptsThoseWhoDeclareTheBackend(t *testing.T) {
	g := graphtest.Graph(t, "mesh.yaml", []byte(checkedMesh))
	want := []policy.Exemption{{
		Name: "generated: health check /grpc.health.v1.Health/Check of shop/orders at port 9002", Destination: "spiffe://prod.example/shop/orders",
		Method: "POST", Path: "/grpc.health.v1.Health/Check", Port: 9002, Sources: []string{"spiffe://prod.example/shop/web"},
	}, {
		Name: "generated: health check /healthz of shop/orders at port 9001 for ingress alb, nlb, old", Destination: "spiffe://prod.example/shop/orders",
		Method: "GET", Path: "/healthz", Port: 9001, Sources: []string{"spiffe://prod.example/shop/web"}, Ingress: []string{"alb", "nlb", "old"},
	}, {
		Name: "generated: health check /healthz of shop/orders at port 9004", Destination: "spiffe://prod.example/shop/orders",
		Method: "GET", Path: "/healthz", Port: 9004, Sources: []string{"spiffe://prod.example/shop/web"},
	}, {
		Name: "generated: health check /old of shop/orders at port 9001 for ingress old", Destination: "spiffe://prod.example/shop/orders",
		Method: "GET", Path: "/old", Port: 9001, Ingress: []string{"old"},
	}}
	got := policies.HealthExemptions(g, spiffeid.RequireTrustDomainFromString("prod.example"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := policy.Compile(policy.NewRevision("", "", nil, policy.Generated{Exemptions: got})); err != nil {
		t.Error(err)
	}
}
