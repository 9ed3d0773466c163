package xdstest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"signet.example/ads"
	"signet.example/internal/watched"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// stub is an ext_authz server with the policy of the corpus: nobody reaches
// /admin. It reads the path that Envoy shows it and nothing cleverer.
type stub struct {
	authv3.UnimplementedAuthorizationServer
	socket string
	grpc   *grpc.Server
	wg     sync.WaitGroup

	late atomic.Int64 // how long an answer takes

	mu   sync.Mutex
	last *authv3.CheckRequest
	told metadata.MD // with it
}

// seenHeader tells the application what the policy saw.
const seenHeader = "x-policy-saw"

func startStub(t *testing.T) *stub {
	t.Helper()
	s := &stub{socket: filepath.Join(socketDir(t), "authz.sock"), grpc: grpc.NewServer()}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	authv3.RegisterAuthorizationServer(s.grpc, s)
	s.wg.Go(func() { _ = s.grpc.Serve(l) })
	t.Cleanup(s.stop)
	return s
}

func (s *stub) stop() { s.grpc.Stop(); s.wg.Wait() }

// Check is the policy.
func (s *stub) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.mu.Lock()
	s.last = req
	s.told, _ = metadata.FromIncomingContext(ctx)
	s.mu.Unlock()
	watched.Sleep(ctx, time.Duration(s.late.Load()))
	full := req.GetAttributes().GetRequest().GetHttp().GetPath()
	path, _, _ := strings.Cut(full, "?")
	if strings.HasPrefix(path, "/admin") {
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status:  &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
				Headers: []*corev3.HeaderValueOption{option("x-signet-denied", "policy"), option("x-signet-decision-id", "00000000000000000000000000000001")},
				Body:    "denied: policy\n",
			}},
		}, nil
	}
	ok := &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option(seenHeader, full)}}
	if strings.HasPrefix(path, "/reroute") {
		ok.Headers = append(ok.Headers, option(":path", "/admin"))
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

func (s *stub) lastCheck() *authv3.AttributeContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.GetAttributes()
}

func option(k, v string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: v}}
}

// application listens where the proxy expects it and remembers what arrived,
// as it arrived.
type application struct {
	address string
	port    uint32

	hold chan struct{} // where it is set, answers wait until it is closed
	said atomic.Value  // a func(http.ResponseWriter, *http.Request) that begins each answer, if any

	mu       sync.Mutex
	requests []*http.Request
}

func startApplication(t *testing.T) *application {
	t.Helper()
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	a := new(application)
	host, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	a.address, a.port = host, uint32(n)
	srv := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return a
}

func (a *application) portText() string { return strconv.FormatUint(uint64(a.port), 10) }

// ServeHTTP is not a ServeMux, which would clean the path before we see it.
func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // trailers come after it
	a.mu.Lock()
	a.requests = append(a.requests, r)
	a.mu.Unlock()
	if a.hold != nil {
		<-a.hold
	}
	if r.Header.Get("Upgrade") == "websocket" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		return
	}
	if say, ok := a.said.Load().(func(http.ResponseWriter, *http.Request)); ok {
		say(w, r)
	}
	// An application may not pretend to be a denial.
	w.Header().Set("X-Signet-Denied", "forged")
	w.Header().Set("X-Signet-Decision-Id", "forged")
	_, _ = w.Write([]byte("served\n"))
}

// take returns what arrived since the last call.
func (a *application) take() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	rs := a.requests
	a.requests = nil
	return rs
}

// inbound is a generated inbound listener between a caller and an application.
type inbound struct {
	of    xdstest.Case
	proxy *running
	stub  *stub
	app   *application
	addr  string // of the listener
	pki   *pki
}

func startInbound(t *testing.T, manifest string, egressTo ...string) *inbound {
	t.Helper()
	return startInboundEdited(t, manifest, func(r *ads.Resource) *ads.Resource { return r }, egressTo...)
}

func startInboundEdited(t *testing.T, manifest string, edit func(*ads.Resource) *ads.Resource, egressTo ...string) *inbound {
	t.Helper()
	in := &inbound{stub: startStub(t), app: startApplication(t), pki: newPKI(t)}
	port := strconv.FormatUint(uint64(in.app.port), 10)
	text := strings.NewReplacer(append([]string{"PORT", port, "APP", in.app.address}, egressTo...)...).Replace(manifest)
	bind := loopback()
	c := xdstest.Case{
		Name: "inbound", Mesh: "shop", Node: "orders",
		Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: xdstest.TrustDomain, PolicyRevision: "rev-7"},
		Shape: proxy.Shape{Bind: bind, App: in.app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: in.stub.socket, WayoutSocket: in.stub.socket, EnvoyVersion: "1.40.0"},
	}
	in.addr = net.JoinHostPort(c.Shape.Bind, port)
	in.of, in.proxy = c, startEdited(t, c, in.pki, edit)
	return in
}

// orders is one managed node, which also calls a plaintext service by address.
const orders = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
  backends:
    - virtualService: {virtualServiceRef: {name: plain}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: plain}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
  serviceDiscovery: {dns: {hostname: APP}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: plain}
spec: {awsName: plain.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: plain}}}}
`
