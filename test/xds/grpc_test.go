package xdstest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// grpcMesh is a caller of gRPC, the node that it calls, and a router between them.
const grpcMesh = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends: [{virtualService: {virtualServiceRef: {name: orders}}}, {virtualService: {virtualServiceRef: {name: direct}}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: grpc}
      healthCheck: {protocol: grpc, healthyThreshold: 2, unhealthyThreshold: 2, intervalMillis: 5000, timeoutMillis: 2000}
      timeout: {grpc: {perRequest: {unit: s, value: 1}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: direct}
spec: {awsName: direct.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: orders}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {awsName: orders.shop.internal, provider: {virtualRouter: {virtualRouterRef: {name: orders}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: orders}
spec:
  listeners: [{portMapping: {port: PORT, protocol: grpc}}]
  routes:
    - name: repeated
      grpcRoute:
        match: {serviceName: grpc.testing.TestService, methodName: UnaryCall, metadata: [{name: x-repeat, match: {exact: declared}}]}
        retryPolicy: {grpcRetryEvents: [unavailable, resource-exhausted], httpRetryEvents: [stream-error], maxRetries: 3, perRetryTimeout: {unit: s, value: 2}}
        action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}
    - name: service
      grpcRoute:
        match: {serviceName: grpc.testing.TestService}
        action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}
    - name: admin
      grpcRoute:
        match: {serviceName: admin.Service}
        action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}
`

// callable is an application of gRPC that fails as the caller's metadata says.
type callable struct {
	grpc_testing.UnimplementedTestServiceServer
	grpc_health_v1.UnimplementedHealthServer

	mu     sync.Mutex
	calls  map[string]int // guarded by mu
	probes int            // guarded by mu
}

func (c *callable) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	what := strings.Join(md.Get("x-what"), "")
	c.mu.Lock()
	c.calls[what]++
	c.mu.Unlock()
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-of-the-application", "kept", "x-signet-denied", "forged"))
	switch {
	case strings.HasPrefix(what, "slow"):
		<-ctx.Done()
	case strings.HasPrefix(what, "unavailable"):
		return nil, status.Error(codes.Unavailable, "later")
	case strings.HasPrefix(what, "internal"):
		return nil, status.Error(codes.Internal, "broken")
	}
	return &grpc_testing.SimpleResponse{Username: strings.Join(md.Get("x-forwarded-client-cert"), "")}, nil
}

func (c *callable) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			s.SetTrailer(metadata.Pairs("x-count", "3"))
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

// Check is the health check of clients' proxies.
func (c *callable) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probes++
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (c *callable) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[what]
}

// called is a mesh of gRPC, running: front calls orders over mTLS.
type called struct {
	app           *callable
	server        *grpc.Server
	stub          *stub
	orders, front *running
	out, in       string
}

func (c *called) dial(t *testing.T, authority string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.out, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority), grpc.WithDisableRetry(), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func startGRPC(t *testing.T) *called {
	t.Helper()
	c := &called{app: &callable{calls: map[string]int{}}, stub: startStub(t), server: grpc.NewServer()}
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	grpc_testing.RegisterTestServiceServer(c.server, c.app)
	grpc_health_v1.RegisterHealthServer(c.server, c.app)
	done := make(chan struct{})
	go func() { defer close(done); _ = c.server.Serve(l) }() // ends by Stop
	t.Cleanup(func() { c.server.Stop(); <-done })
	host, portText, _ := net.SplitHostPort(l.Addr().String())
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	pki, graph := newPKI(t), graphtest.Graph(t, "mesh.yaml", []byte(strings.ReplaceAll(grpcMesh, "PORT", portText)))
	wayout := startStub(t) // who may call goes on being answered when nobody decides
	at := map[string]string{"orders": loopback(), "front": loopback()}
	start := func(name string) *running {
		return startProxy(t, xdstest.Case{
			Name: name, Mesh: "shop", Node: name,
			Input: xds.Input{
				Graph: graph, TrustDomain: xdstest.TrustDomain,
				Endpoints: func(node proxy.Ref, _ uint32) []xds.Endpoint {
					return []xds.Endpoint{{Address: at[node.Name], Port: uint32(port), Healthy: true}} //nolint:gosec // 16 bits
				},
			},
			Shape: proxy.Shape{Bind: at[name], App: host, Egress: xdstest.EgressOn(at[name]), AuthzSocket: c.stub.socket, WayoutSocket: wayout.socket},
		}, pki)
	}
	c.orders, c.front = start("orders"), start("front")
	c.out, c.in = xdstest.EgressOn(at["front"]).String(), net.JoinHostPort(at["orders"], portText)
	return c
}

func TestCallsOfGRPCPassAreDecidedAndAreRefusedAsGRPC(t *testing.T) {
	c := startGRPC(t)
	conn := c.dial(t, "orders.shop.internal")
	client := grpc_testing.NewTestServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	var trailers metadata.MD
	answer, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.Trailer(&trailers))
	if err != nil || !strings.Contains(answer.GetUsername(), "URI=spiffe://test.example/shop/front") {
		t.Fatalf("unary: %v %v", answer, err)
	}
	if strings.Join(trailers.Get("x-of-the-application"), "") != "kept" || len(trailers.Get("x-signet-denied")) > 0 {
		t.Errorf("trailers: %v", trailers)
	}
	if path := c.stub.lastCheck().GetRequest().GetHttp().GetPath(); path != "/grpc.testing.TestService/UnaryCall" {
		t.Errorf("the policy saw %q", path)
	}
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || string(m.GetPayload().GetBody()) != "x" {
			t.Fatalf("stream: %v %v", m, err)
		}
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) || strings.Join(stream.Trailer().Get("x-count"), "") != "3" {
		t.Errorf("end of stream: %v %v", err, stream.Trailer())
	}
	c.app.mu.Lock()
	if c.app.probes == 0 {
		t.Error("no health check arrived")
	}
	c.app.mu.Unlock()

	call := func(conn *grpc.ClientConn, method string, md ...string) (codes.Code, string, metadata.MD) {
		t.Helper()
		var header, trailer metadata.MD
		err := conn.Invoke(metadata.AppendToOutgoingContext(ctx, md...), method, &grpc_testing.SimpleRequest{}, &grpc_testing.SimpleResponse{}, grpc.Header(&header), grpc.Trailer(&trailer))
		return status.Code(err), status.Convert(err).Message(), metadata.Join(header, trailer)
	}
	logged := func(id string) {
		t.Helper()
		if !uuid.MatchString(id) {
			t.Errorf("the id is %q", id)
			return
		}
		eventually(t, "the record of "+id, func() bool { return strings.Contains(c.orders.envoy.Log()+c.front.envoy.Log(), id) })
	}
	if code, message, md := call(conn, "/admin.Service/Do"); code != codes.PermissionDenied || strings.Join(md.Get("x-signet-denied"), "") != "policy" || !strings.Contains(message, "denied: policy") || strings.Join(md.Get("x-signet-decision-id"), "") != "00000000000000000000000000000001" {
		t.Errorf("a denial: %v %q %v", code, message, md)
	}
	if code, _, md := call(conn, "/other.Service/Do"); code != codes.Unimplemented || strings.Join(md.Get("x-signet-denied"), "") != "undeclared" {
		t.Errorf("no such route: %v %v", code, md)
	} else {
		logged(strings.Join(md.Get("x-signet-decision-id"), ""))
	}
	// The time of the listener, and that of the application's own answers.
	const unary = "/grpc.testing.TestService/UnaryCall"
	if code, _, _ := call(conn, unary, "x-what", "slow"); code != codes.DeadlineExceeded || c.app.count("slow") != 1 {
		t.Errorf("slow: %v, called %d times", code, c.app.count("slow"))
	}
	for _, row := range []struct {
		what, repeat string
		code         codes.Code
		times        int
	}{
		{"unavailable-1", "", codes.Unavailable, 1}, // it may have been served
		{"unavailable-2", "declared", codes.Unavailable, 4},
		{"internal-1", "declared", codes.Internal, 1},
		{"slow-1", "declared", codes.DeadlineExceeded, 1},
	} {
		if code, _, _ := call(conn, unary, "x-what", row.what, "x-repeat", row.repeat); code != row.code || c.app.count(row.what) != row.times {
			t.Errorf("%s %s: %v, called %d times, want %v, %d", row.what, row.repeat, code, c.app.count(row.what), row.code, row.times)
		}
	}
	// Not by way of a route: a service that the node provides itself.
	if code, _, _ := call(c.dial(t, "direct.shop.internal"), unary); code != codes.OK {
		t.Errorf("provided by the node: %v", code)
	}
	// The application dies under a call, which it may have served; then it is gone.
	var wg sync.WaitGroup
	wg.Go(func() {
		eventually(t, "the call arrived", func() bool { return c.app.count("slow-2") > 0 })
		c.server.Stop()
	})
	if code, _, md := call(conn, unary, "x-what", "slow-2", "x-repeat", "declared"); code != codes.Unknown || c.app.count("slow-2") != 1 || len(md.Get("x-signet-not-served")) > 0 {
		t.Errorf("the application died: %v, called %d times, %v", code, c.app.count("slow-2"), md)
	}
	wg.Wait()
	if code, _, md := call(conn, unary); code != codes.Unavailable || strings.Join(md.Get("x-signet-not-served"), "") != "true" {
		t.Errorf("the application is gone: %v %v", code, md)
	}
	c.stub.stop()
	code, message, md := call(conn, unary, "x-what", "nobody")
	if code != codes.Unavailable || strings.Join(md.Get("x-signet-denied"), "") != "unavailable" || !strings.Contains(message, "denied: unavailable") || c.app.count("nobody") != 0 {
		t.Errorf("nobody decides: %v %q %v", code, message, md)
	}
	logged(strings.Join(md.Get("x-signet-decision-id"), ""))
}
