package xds_test

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// checked is the cluster of the application of a node whose listener has a check.
func checked(t *testing.T, protocol, check string) *clusterv3.Cluster {
	t.Helper()
	manifest := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\n" +
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: orders}\nspec: {listeners: [{portMapping: {port: 80, protocol: " + protocol + "}" + check + "}]}\n"
	in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(manifest)), TrustDomain: xdstest.TrustDomain}
	set, err := xds.Build(in, proxy.Node("shop", "orders"), xdstest.Shape)
	if err != nil {
		t.Fatal(err)
	}
	var c clusterv3.Cluster
	r := set.Get(ads.ClusterType, fmt.Sprintf("cds_ingress_shop_orders_%s_80", protocol))
	if r == nil || proto.Unmarshal(r.Body, &c) != nil {
		t.Fatalf("no cluster of the application: %v", r)
	}
	return &c
}

// A client's check by http comes to an application of gRPC in HTTP/2, since its proxy speaks
// nothing else with it; the proxy's own must not ask for more.
func TestAnApplicationIsCheckedAsItsCallersChecksReachIt(t *testing.T) {
	for _, c := range []struct {
		protocol, check string
		codec           typev3.CodecClientType
		kind            string
	}{
		{"http", "http", typev3.CodecClientType_HTTP1, "http"},
		{"http", "http2", typev3.CodecClientType_HTTP1, "http"},
		{"http2", "http", typev3.CodecClientType_HTTP2, "http"},
		{"http2", "grpc", 0, "grpc"},
		{"grpc", "http", typev3.CodecClientType_HTTP2, "http"},
		{"grpc", "http2", typev3.CodecClientType_HTTP2, "http"},
		{"grpc", "grpc", 0, "grpc"},
		{"http", "tcp", 0, "tcp"},
		{"tcp", "tcp", 0, "tcp"},
	} {
		cluster := checked(t, c.protocol, ", healthCheck: {protocol: "+c.check+", healthyThreshold: 2, unhealthyThreshold: 3, intervalMillis: 5000, timeoutMillis: 2000}")
		if len(cluster.GetHealthChecks()) != 1 {
			t.Errorf("%s by %s: %d checks", c.protocol, c.check, len(cluster.GetHealthChecks()))
			continue
		}
		h := cluster.GetHealthChecks()[0]
		kind := map[bool]string{h.GetHttpHealthCheck() != nil: "http", h.GetGrpcHealthCheck() != nil: "grpc", h.GetTcpHealthCheck() != nil: "tcp"}[true]
		if kind != c.kind || h.GetHttpHealthCheck().GetCodecClientType() != c.codec || h.GetTlsOptions() != nil || h.GetInterval().AsDuration().Seconds() != 5 || h.GetUnhealthyThreshold().GetValue() != 3 {
			t.Errorf("%s by %s: %v", c.protocol, c.check, h)
		}
		if p := cluster.GetCommonLbConfig().GetHealthyPanicThreshold().GetValue(); p != 100 {
			t.Errorf("%s by %s: an application that fails is not called: the panic threshold is %v", c.protocol, c.check, p)
		}
	}
	if c := checked(t, "http", ""); len(c.GetHealthChecks()) != 0 || c.GetCommonLbConfig() != nil {
		t.Errorf("nothing declares a check, and there is one: %v", c)
	}
}
