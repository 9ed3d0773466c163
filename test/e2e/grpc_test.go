package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/test/meshtest"
)

// grpcApp is an application of gRPC with its own health.
type grpcApp struct {
	meshtest.App // of HTTP/1 there is none
	grpc_testing.UnimplementedTestServiceServer
}

func (grpcApp) ServeListener(l net.Listener) {
	s := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(s, grpcApp{})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	_ = s.Serve(l) // until the listener is closed
	s.Stop()
}

// grpcCaller is what the proxy said of the caller.
func grpcCaller(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("x-forwarded-client-cert"), "")
}

func (grpcApp) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Username: grpcCaller(ctx)}, nil
}

// FullDuplexCall answers each message when it has come.
func (grpcApp) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: []byte(grpcCaller(s.Context()))}}); err != nil {
			return err
		}
	}
}

const grpcPolicy = `package signet.authz.orders

allow contains "front calls one method" if {
	input.source.virtual_node == "front"
	input.request.path == "/grpc.testing.TestService/UnaryCall"
}
`

func TestCallsOfGRPCAreDecidedByTheirMethodAndCheckedWhateverThePolicyIs(t *testing.T) {
	orders := strings.Replace(meshtest.VirtualNode("orders", "      healthCheck: {protocol: grpc, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}\n"), "protocol: http}", "protocol: grpc}", 1)
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, Apps: map[string]meshtest.App{"orders": grpcApp{}}, Policy: map[string]string{"orders.rego": grpcPolicy},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), orders, meshtest.ServiceOfNode("orders", "orders")),
	})
	conn, err := grpc.NewClient("passthrough:///"+w.Nodes["front"].EgressAddress(), grpc.WithAuthority(meshtest.HostOf("orders")),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := grpc_testing.NewTestServiceClient(conn)
	var answer *grpc_testing.SimpleResponse
	eventually(t, 15*time.Second, "a healthy endpoint", func() bool {
		answer, err = client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
		return status.Code(err) != codes.Unavailable
	})
	if err != nil || !strings.Contains(answer.GetUsername(), "URI=spiffe://test.example/test/front") {
		t.Fatalf("unary: %v %v", answer, err)
	}
	// Where all endpoints are unhealthy Envoy serves from them: only it tells.
	eventually(t, 15*time.Second, "checks that orders passes", func() bool {
		clusters := string(adminAt(t, filepath.Join(w.AgentDir(), "proxies", "front", "admin.sock"), "/clusters"))
		return regexp.MustCompile(`(?m)^cds_egress_test_orders_.*::health_flags::healthy$`).MatchString(clusters)
	})
	var header, trailer metadata.MD
	_, err = client.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer))
	id := strings.Join(metadata.Join(header, trailer).Get("x-signet-decision-id"), "")
	if status.Code(err) != codes.PermissionDenied || id == "" {
		t.Fatalf("a method that no rule allows: %v, decision %q", err, id)
	}
	eventually(t, 5*time.Second, "the record", func() bool {
		_, err := w.Admin.Explain(t.Context(), &api.ExplainRequest{Id: id})
		return err == nil
	})
}
