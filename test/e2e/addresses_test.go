package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"signet.example/dev"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// addressRange is one of loopback addresses that no other test on this host has.
func addressRange(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := dev.ReserveLoopback(1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() }) // the test is over
		var second, third int
		if _, err := fmt.Sscanf(l.Addresses[0], "127.%d.%d.1", &second, &third); err == nil && second < 192 {
			return fmt.Sprintf("127.%d.%d.0/24", second, third)
		}
	}
	t.Fatal("no range is free")
	return ""
}

// addressed is a mesh in which the application of web finds its backends at their addresses.
func addressed(t *testing.T, extra string) *meshtest.World {
	t.Helper()
	rpc := strings.Replace(meshtest.VirtualNode("rpc", ""), "protocol: http}", "protocol: grpc}", 1)
	return meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web", "batch", "orders", "rpc", "store"}, Apps: map[string]meshtest.App{"rpc": grpcApp{}}, ServiceAddresses: []string{"web"}, AgentExtra: extra,
		Manifests: meshtest.Join(meshtest.Mesh(), "apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: test}\nspec: {serviceAddresses: {range: "+addressRange(t)+"}}\n",
			meshtest.VirtualNode("web", "", "orders", "rpc", "store"), meshtest.VirtualNode("batch", "", "orders"), meshtest.VirtualNode("orders", ""), rpc, storeNode(""),
			meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("rpc", "rpc"), meshtest.ServiceOfNode("store", "store")),
	})
}

var addressInRow = regexp.MustCompile(`(?m)^VirtualService +test +(\S+)\.test\.internal .* (127\.\d+\.\d+\.\d+)$`)

// addressesOf are those of the services, as an operator is shown them.
func addressesOf(t *testing.T, w *meshtest.World, n int) map[string]string {
	t.Helper()
	out, code := w.CLI("get", "virtualservices", "-o", "wide")
	at := map[string]string{}
	for _, row := range addressInRow.FindAllStringSubmatch(out, -1) {
		at[meshtest.HostOf(row[1])] = row[2]
	}
	if code != 0 || len(at) != n {
		t.Fatalf("exit %d: %s", code, out)
	}
	return at
}

// byRecord is a client to which each service's name leads to the address that its A record has,
// and that knows of no proxy.
func byRecord(resolve func(ctx context.Context, host string) (string, error)) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if host, err = resolve(ctx, host); err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(host, port))
	}}}
}

func TestAnApplicationFindsItsBackendsAtTheirOwnAddresses(t *testing.T) {
	w := addressed(t, "")
	app := startSpeaker(t, w.Nodes["store"].App)
	at := addressesOf(t, w, 3)
	client := byRecord(func(_ context.Context, host string) (string, error) { return at[host], nil })
	orders := fmt.Sprintf("http://%s:%d", meshtest.HostOf("orders"), meshtest.AppPort)
	w.Await("web calls orders", 30*time.Second, func() error {
		a, err := meshtest.Do(t, client, http.MethodGet, orders+"/cart")
		if err == nil && (a.Status != http.StatusOK || a.Seen.Caller() != "spiffe://test.example/test/web") {
			err = fmt.Errorf("%d as %q", a.Status, a.Seen.Caller())
		}
		return err
	})
	if out, code := w.CLI("routes", meshtest.HostOf("orders")+"/cart", "--from", "web"); code != 0 || !strings.Contains(out, "the service's address is "+at[meshtest.HostOf("orders")]+",") {
		t.Errorf("exit %d: %s", code, out)
	}

	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///%s:%d", at[meshtest.HostOf("rpc")], meshtest.AppPort), grpc.WithAuthority(fmt.Sprintf("%s:%d", meshtest.HostOf("rpc"), meshtest.AppPort)),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w.Await("web calls rpc", 30*time.Second, func() error {
		answer, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
		if err == nil && !strings.Contains(answer.GetUsername(), "URI=spiffe://test.example/test/web") {
			err = fmt.Errorf("as %s", answer.GetUsername())
		}
		return err
	})

	store := fmt.Sprintf("%s:%d", at[meshtest.HostOf("store")], storePort)
	w.Await("web speaks to the store", 30*time.Second, func() error {
		c, err := speak(store)
		if err == nil {
			err = c.Close()
		}
		return err
	})

	if caller, err := streamed(t.Context(), grpc_testing.NewTestServiceClient(conn)); err != nil || !strings.Contains(caller, "URI=spiffe://test.example/test/web") {
		t.Errorf("a stream to rpc: %q, %v", caller, err)
	}
	came := app.came.Load() // it would speak first
	if text, err := listened(store); text != "" || errors.Is(err, os.ErrDeadlineExceeded) || app.came.Load() != came {
		t.Errorf("who waits for the store's first word: %q, %v, and %d came", text, err, app.came.Load()-came)
	}

	// What is no backend is nowhere, and the way out is the same as at the other listener.
	ordersAt := fmt.Sprintf("%s:%d", at[meshtest.HostOf("orders")], meshtest.AppPort)
	if status, err := rawCallTo(ordersAt, "http://nobody.test.internal/"); err != nil || status != http.StatusNotFound {
		t.Errorf("a host that is no backend: %d, %v", status, err)
	}
	stranger := func(what string, call func() error) {
		t.Helper()
		var err error
		if parts.AsUser(t, otherUser, func() { err = call() }); err == nil {
			t.Errorf("another user of the host %s", what)
		}
	}
	stranger("calls orders", func() error { _, err := rawCallTo(ordersAt, orders+"/stolen"); return err })
	stranger("speaks to the store", func() error { return hungUp(speak(store)) })

	// A service that comes changes no address, and one that nobody declares is at none.
	w.Apply(meshtest.ServiceOfNode("later", "orders"))
	out, code := w.CLI("get", "virtualservice/test/"+meshtest.HostOf("later"), "-o", "wide")
	m := addressInRow.FindStringSubmatch(out)
	if code != 0 || m == nil {
		t.Fatalf("exit %d: %s", code, out)
	}
	if c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", m[2], meshtest.AppPort), time.Second); err == nil {
		_ = c.Close() // nobody is to be there
		t.Errorf("a service that is no backend of web is at %s", m[2])
	}
	for host, was := range at {
		if out, _ := w.CLI("get", "virtualservice/test/"+host, "-o", "wide"); !strings.Contains(out, was) {
			t.Errorf("%s was at %s: %s", host, was, out)
		}
	}
}

// Without records in any zone: the agent is the application's name server.
func TestAnApplicationFindsItsBackendsByTheAgentsNameServer(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.LocalAddr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w := addressed(t, "dns: {listen: "+at+", upstreams: [\"127.0.0.1:9\"]}\n")
	startSpeaker(t, w.Nodes["store"].App)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
	dialer := &net.Dialer{Resolver: resolver, Timeout: 5 * time.Second}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	w.Await("web calls orders by its name", 30*time.Second, func() error {
		a, err := meshtest.Do(t, client, http.MethodGet, fmt.Sprintf("http://%s:%d/cart", meshtest.HostOf("orders"), meshtest.AppPort))
		if err == nil && (a.Status != http.StatusOK || a.Seen.Caller() != "spiffe://test.example/test/web") {
			err = fmt.Errorf("%d as %q", a.Status, a.Seen.Caller())
		}
		return err
	})
	w.Await("web speaks to the store by its name", 30*time.Second, func() error {
		c, err := dialer.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", meshtest.HostOf("store"), storePort))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }() // answered
		got, err := exchange(c, "store", len("hello store"))
		if err == nil && got != "hello store" {
			err = fmt.Errorf("it answered %q", got)
		}
		return err
	})
	for host, want := range addressesOf(t, w, 3) {
		if got, err := resolver.LookupHost(t.Context(), host); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, %v, want %s", host, got, err, want)
		}
	}
	if got, err := resolver.LookupHost(t.Context(), "else.example."); err == nil {
		t.Errorf("what no name server knows: %v", got)
	}
}
