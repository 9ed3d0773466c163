package agent_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/api"
)

func TestOnlyABoundProxyMayAskWhoCallsOut(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), binding("web", "web", "unix:path:/bin/other")}
	})
	r.ready()
	conn, err := grpc.NewClient("unix:"+filepath.Join(r.dir, "wayout.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the test is over
	answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{})
	if err != nil || codes.Code(answer.GetStatus().GetCode()) != codes.PermissionDenied { //nolint:gosec // a status code
		t.Errorf("%v, %v", answer, err)
	}
	r.await("the metric", func() bool { return r.metric(`signet_agent_wayout_connections_total{result="proxy"}`) == "1" })
}

// What a process is on xds.sock, it calls out as: the question about a connection has no
// node id.
func TestAWayOutIsOfTheNodeThatTheProcessIs(t *testing.T) {
	user := fmt.Sprintf("unix:uid:%d", os.Geteuid())
	web := binding("web", "web", self(t))
	web.Applications = []string{user}
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{web, binding("api", "api", self(t))}
	})
	r.routeWeb("", "one")
	r.ready()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(c.Close(), l.Close()) }() // the test is over
	asked := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: end(c.LocalAddr()), Destination: end(c.RemoteAddr())}}
	may := func() bool {
		t.Helper()
		answer, err := authv3.NewAuthorizationClient(r.dial("wayout.sock")).Check(t.Context(), asked)
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStatus().GetCode() == int32(codes.OK)
	}
	if may() {
		t.Error("a process that is two nodes, and has not said which, calls out")
	}
	take(t, r.ads(webNode), func(m *discoveryv3.DeltaDiscoveryResponse) bool { return len(m.GetResources()) == 1 })
	if !may() {
		t.Error("the process that is web does not call out")
	}
}

// end is one end of a connection, as Envoy gives it.
func end(a net.Addr) *authv3.AttributeContext_Peer {
	at := a.(*net.TCPAddr) //nolint:forcetypeassert // as it was made
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.IP.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port)}, //nolint:gosec // a port
	}}}}
}
