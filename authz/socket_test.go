package authz_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/authz"
)

// attestingListener names the caller of each connection, as the process that
// accepts them does.
type attestingListener struct {
	net.Listener
	caller func() (authz.Caller, bool)
}

func (l attestingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if caller, ok := l.caller(); ok {
		return authz.NewConn(c, caller), nil
	}
	return c, nil
}

// serve serves over a Unix socket and returns a client's connection.
func serve(tb testing.TB, s authv3.AuthorizationServer, caller func() (authz.Caller, bool)) func() authv3.AuthorizationClient {
	tb.Helper()
	socket := filepath.Join(tb.TempDir(), "authz.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		tb.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(authz.Credentials()))
	authv3.RegisterAuthorizationServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(attestingListener{l, caller}) }) // ends with Stop
	tb.Cleanup(func() { g.Stop(); wg.Wait() })
	return func() authv3.AuthorizationClient {
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = conn.Close() })
		return authv3.NewAuthorizationClient(conn)
	}
}

func TestTheDestinationIsThatOfTheConnection(t *testing.T) {
	f := newFixture(t)
	callers := []authz.Caller{{Destination: orders, Proxy: "a"}, {Destination: spiffeid.RequireFromString(web), Proxy: "b"}}
	n := 0
	dial := serve(t, f, func() (authz.Caller, bool) {
		n++
		return callers[n-1], true
	})
	q := f.question("GET", "/orders/1", web)
	for i, want := range []bool{true, false} {
		resp, err := dial().Check(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if (resp.GetOkResponse() != nil) != want || f.last().Destination != callers[i].Destination.String() || f.last().Proxy != callers[i].Proxy {
			t.Errorf("%d: %+v", i, f.last())
		}
	}
}

func TestAConnectionWithoutCallerIsClosed(t *testing.T) {
	f := newFixture(t)
	client := serve(t, f, func() (authz.Caller, bool) { return authz.Caller{}, false })()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if resp, err := client.Check(ctx, f.question("GET", "/orders/1", web)); err == nil {
		t.Errorf("answered %v", resp)
	}
	client = serve(t, f, func() (authz.Caller, bool) { return authz.Caller{}, true })()
	if resp, err := client.Check(t.Context(), f.question("GET", "/orders/1", web)); err != nil || resp.GetOkResponse() != nil || f.last().Cause != authz.CauseError {
		t.Errorf("a caller without identity: %v %v", resp, err)
	}
}
