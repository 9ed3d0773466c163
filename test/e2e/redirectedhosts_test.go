package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"signet.example/redirect"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// storeTask is what is redirected to the task of the store.
const storeTask = `{"properties": [
	{"name": "IgnoredUID", "value": "1337"}, {"name": "AppPorts", "value": "8080,6379"},
	{"name": "ProxyIngressPort", "value": "15000"}, {"name": "ProxyEgressPort", "value": "15001"},
	{"name": "EgressIgnoredIPs", "value": "169.254.170.2,169.254.169.254"}]}`

// redirectedHosts are two hosts of which each has its application's connections redirected in both directions:
// web here, whose application is user 1000, and a task of the store, which takes gRPC and bytes by mTLS alone, there.
func redirectedHosts(t *testing.T) (*meshtest.World, *task) {
	t.Helper()
	w := meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"web"}, Binds: map[string]string{"web": parts.ThisHost}, Ranges: `"10.231.0.0/24"`,
		Capture: map[string]string{"web": "{egress: 15001, ingress: 15000}"}, Applications: map[string]string{"web": `"unix:uid:1000"`},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "", "store"), meshtest.ServiceOfNode("web", "web"), meshtest.ServiceOfNode("store", "store"),
			"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: store-proxy}\nspec: {group: hosts, mesh: test, virtualNode: store, selectors: [\"signet:proxy:store\"], applications: [namespace]}\n",
			"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: store}\nspec:\n  meshRef: {name: test}\n  listeners:\n"+
				"    - portMapping: {port: 8080, protocol: grpc}\n"+meshtest.Strict("test.example", "store")+
				"    - portMapping: {port: 6379, protocol: tcp}\n"+meshtest.Strict("test.example", "store")+
				"  backends: [{virtualService: {virtualServiceRef: {name: web}}}]\n"),
	})
	k := &task{t: t, host: 2, image: image{w.Place(w.Program(), "signet-task"), w.PlaceEnvoy()}, dir: filepath.Join(w.Dir, "store"), ended: make(chan struct{})}
	if err := json.Unmarshal([]byte(storeTask), &k.platform); err != nil {
		t.Fatal(err)
	}
	k.routed()
	k.redirect("up")
	k.begin(w, "SIGNET_PROXY_VIRTUAL_NODE=store", "SIGNET_PROXY_CAPTURE_EGRESS=15001", "SIGNET_PROXY_CAPTURE_INGRESS=15000")
	everythingIsRouted(t)
	up(t, redirect.Rules{EgressPort: 15001, IngressPort: 15000, AppPorts: []uint16{8080}, IgnoreUIDs: []uint32{0}})
	return w, k
}

// onTask listens on all addresses of the task's host.
func onTask(t *testing.T, port int) (l net.Listener) {
	t.Helper()
	parts.FromAnotherHost(t, func() {
		var err error
		if l, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
			t.Error(err)
		}
	})
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// grpcTo calls by gRPC what a name is meant to be at a made-up address, by connections that dial makes.
func grpcTo(t *testing.T, name string, dial func(address string) (net.Conn, error)) grpc_testing.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+nowhere+":8080", grpc.WithAuthority(name+":8080"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) { return dial(address) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

// asUser dials as a user of this host.
func asUser(t *testing.T, uid int) func(string) (net.Conn, error) {
	return func(address string) (c net.Conn, err error) {
		parts.AsUser(t, uid, func() { c, err = net.DialTimeout("tcp", address, 5*time.Second) })
		return c, err
	}
}

// streamed says something on a stream three times, and returns who the callee says that it was.
func streamed(ctx context.Context, client grpc_testing.TestServiceClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return "", err
	}
	caller := ""
	for range 3 {
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		answer, err := s.Recv()
		if err != nil {
			return "", err
		}
		caller = string(answer.GetPayload().GetBody())
	}
	if err := s.CloseSend(); err != nil {
		return "", err
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("a stream of three has no end: %w", err)
	}
	return caller, nil
}

// What is redirected out of one host and into another goes between their proxies by mTLS: gRPC, single calls
// and streams, and bytes of a protocol in which the client speaks first, as those of Redis and PostgreSQL.
func TestCallsOfGRPCAndOfDatabasesAreRedirectedFromHostToHostByMTLS(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	w, k := redirectedHosts(t)
	served := make(chan struct{})
	l := onTask(t, 8080)
	go func() { defer close(served); grpcApp{}.ServeListener(l) }()
	t.Cleanup(func() { _ = l.Close(); <-served })
	sayingOn(t, onTask(t, 6379), "the store")

	const store, web = "store.test.internal", "URI=spiffe://test.example/test/web"
	client := grpcTo(t, store, asUser(t, 1000))
	w.Await("a call of gRPC", 30*time.Second, func() error {
		answer, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
		if err == nil && !strings.Contains(answer.GetUsername(), web) {
			err = fmt.Errorf("the caller is %q", answer.GetUsername())
		}
		return err
	})
	if caller, err := streamed(t.Context(), client); err != nil || !strings.Contains(caller, web) {
		t.Errorf("a stream: %q, %v", caller, err)
	}
	if answer, err := grpcTo(t, store, asUser(t, 1001)).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); err == nil {
		t.Errorf("another user of this host: %v", answer)
	}
	var text string
	w.Await("bytes", 20*time.Second, func() (err error) {
		parts.AsUser(t, 1000, func() { text, err = says(nowhere + ":6379") })
		if err == nil && text != "the store" {
			err = fmt.Errorf("%q", text)
		}
		return err
	})

	// The user of the proxy here calls past it, and meets the callee's, in plaintext.
	for _, port := range []string{"8080", "6379", "15000"} {
		if text, err := says(parts.AnotherHost + ":" + port); text != "" {
			t.Errorf("port %s of the task takes plaintext: %q, %v", port, text, err)
		}
	}
	for _, port := range []string{"8080", "6379"} {
		if name, err := certificateAt(parts.AnotherHost + ":" + port); name != "spiffe://test.example/test/store" {
			t.Errorf("who answers at port %s of the task is %q, %v", port, name, err)
		}
	}

	// The other way: from the task's application to the one here.
	k.callHere(w)
}

// callHere has a task's application call web by its name and port.
func (k *task) callHere(w *meshtest.World) {
	k.t.Helper()
	w.Await("the task's application calls out", 20*time.Second, func() (err error) {
		var answer string
		parts.FromHost(k.t, k.host, func() { answer, err = asked(nowhere+":8080", meshtest.HostOf("web")+":8080", "/") })
		if err == nil && answer != "web 200" {
			err = errors.New(answer)
		}
		return err
	})
}
